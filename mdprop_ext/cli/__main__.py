"""Makes ``python -m mdprop_ext.cli`` the same as ``mdprop``."""

import sys

from mdprop_ext.cli import main

sys.exit(main())
