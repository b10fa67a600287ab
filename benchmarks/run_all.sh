#!/bin/sh
# Every measurement, one after the other: run_all.sh [--peers DIR] [--runs N]
#
# About twenty minutes with both peers on two quiet cores. Figures go to results/*.json beside this file; one that fails
# does not stop the others.
set -u
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
failed=
for name in cli_help loader train_step val evaluator label_index detect export gpu; do
    echo "== $name"
    "$python" "$here/$name.py" "$@" || failed="$failed $name"
done
if [ -n "$failed" ]; then
    echo "failed:$failed" >&2
    exit 1
fi
