"""melcache COMMAND [flags]: from audio files to instrument classifiers.

  demo       all of it on a small synthetic orchestra
  prepare    audio files to a dataset of log-mel clips
  cache      log-mel clips to a dataset of frozen Inception-ResNet-v2 features
  heads      features to trained classification heads, with a table
  verify     whether a dataset is what its spec says, shard by shard
  report     datasets and heads to one HTML file
  doctor     this machine and a bucket, looked over

melcache COMMAND --help shows a command's flags and an example.
"""

import difflib
import re
import sys

from launch import command

COMMANDS = re.findall(r"^  (\w+) ", __doc__, re.MULTILINE)


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(__doc__.strip(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name = arguments[0]
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        print(
            f"melcache: no command {name!r}"
            + (f", did you mean {nearest[0]!r}?" if nearest else "")
            + f" (commands: {', '.join(COMMANDS)})",
            file=sys.stderr,
        )
        return 2
    return command.run(name, arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
