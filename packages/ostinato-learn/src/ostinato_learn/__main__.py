import sys

from ostinato_learn.cli import main

sys.exit(main())
