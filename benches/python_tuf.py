"""Times python-tuf's client on a repository in a folder: FOLDER TARGET empty|stored. Prints the median in seconds."""

import os
import statistics
import sys
import tempfile
import time

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

RUNS = 5


class Folder(FetcherInterface):
    """Files of a folder under http://folder.example/."""

    def __init__(self, folder):
        self.folder = folder

    def _fetch(self, url):
        try:
            with open(os.path.join(self.folder, url.rsplit("/", 1)[1]), "rb") as file:
                yield file.read()
        except FileNotFoundError as error:
            raise DownloadHTTPError("not found", 404) from error


def update(folder, target, state):
    start = time.perf_counter()
    with open(os.path.join(folder, "root.json"), "rb") as file:
        root = file.read()
    fetcher = Folder(os.path.join(folder, "metadata"))
    updater = Updater(state, "http://folder.example/", fetcher=fetcher, bootstrap=root)
    updater.refresh()
    if updater.get_targetinfo(target) is None:
        sys.exit("not listed")
    return time.perf_counter() - start


def main(folder, target, mode):
    times = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as state:
            taken = update(folder, target, state)
            times.append(update(folder, target, state) if mode == "stored" else taken)
    print(statistics.median(times))


main(*sys.argv[1:])
