"""`python -m yolo_cli` is `yolo`."""

from yolo_cli.cli.app import main

if __name__ == "__main__":
    main()
