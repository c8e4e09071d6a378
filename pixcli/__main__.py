"""python -m pixcli"""

import sys

from pixcli.cli.main import main

sys.exit(main())
