"""Updates from a repository with python-tuf and saves targets: STATE ROOT METADATA_URL TARGETS_URL OUT [TARGET...].

STATE keeps the trusted metadata from run to run; target n goes to the file n in OUT.
"""

import os
import sys

from tuf.ngclient import Updater


def main(state, root, metadata_url, targets_url, out, *wanted):
    for folder in (state, out):
        os.makedirs(folder, exist_ok=True)
    with open(root, "rb") as file:
        bootstrap = file.read()
    updater = Updater(state, metadata_url, out, targets_url, bootstrap=bootstrap)
    updater.refresh()
    for index, name in enumerate(wanted):
        info = updater.get_targetinfo(name)
        if info is None:
            sys.exit(f"{name} is not a target")
        updater.download_target(info, os.path.join(out, str(index)))


main(*sys.argv[1:])
