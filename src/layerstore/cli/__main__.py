"""`python -m layerstore.cli`: the command without its script."""

from __future__ import annotations

import sys

from layerstore.cli import main

if __name__ == "__main__":
    sys.exit(main())
