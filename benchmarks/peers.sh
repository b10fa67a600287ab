#!/bin/sh
# Create one environment per peer in a folder: peers.sh DIR
#
# They have the same torch and torchvision as the Python that runs the benchmarks ($PYTHON, default .venv/bin/python),
# so that only the programs differ. uv is taken from the PATH or from the folder of that Python.
set -eu
target=${1:?usage: peers.sh DIR}
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
uv=$(command -v uv || echo "$(dirname "$python")/uv")
torch=$("$python" -c 'from importlib.metadata import version as v; print(*(f"{p}=={v(p)}" for p in ("torch", "torchvision")))')
mkdir -p "$target"

make_environment() { # name, then packages
    name=$1
    shift
    "$uv" venv --quiet --allow-existing --python "$python" "$target/$name"
    # shellcheck disable=SC2086 # two requirements
    "$uv" pip install --quiet --python "$target/$name/bin/python" $torch "$@"
    echo "$name is in $target/$name"
}

make_environment ultralytics ultralytics faster-coco-eval onnx onnxruntime onnxslim openvino
# yolov5 needs pkg_resources, which newer setuptools lack, and names that numpy 2 lacks. Its plots fail with Pillow 10.
make_environment yolov5 'yolov5==7.0.14' 'setuptools<81' 'numpy<2' 'pillow<10'
