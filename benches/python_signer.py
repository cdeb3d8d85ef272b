"""What `signer` does, with python-tuf: FOLDER build TARGETS BITS | add COUNT RUN | timestamp RUN | online. Prints what it took as JSON.

`build` signs TARGETS files in 2^BITS bins and writes a whole repository; `add` reads what it must of that from the folder,
adds the RUN-th COUNT files and writes the bins they fall in, snapshot and timestamp; `timestamp` and `online` renew timestamp alone, or
snapshot too. Nothing that is read is verified.
"""

import hashlib
import json
import os
import resource
import sys
import time
from datetime import datetime, timedelta, timezone

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

EXPIRES = (datetime.now(timezone.utc) + timedelta(days=90)).replace(microsecond=0)
KEYS = ["root", "targets", "online"]


def target(number):
    """The file of that number, as benches/src/lib.rs makes it."""
    digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
    name = f"project_{number // 40:06}-1.{number % 40}-py3-none-any.whl"
    path = f"{digest[:2]}/{digest[2:4]}/{digest[4:]}/{name}"
    return TargetFile(10_000 + number % 90_000, {"sha256": digest}, path)


class Repository:
    def __init__(self, folder):
        self.folder = folder
        self.metadata = os.path.join(folder, "metadata")

    def key(self, name):
        return os.path.join(self.folder, f"{name}.pem")

    def make_keys(self):
        os.makedirs(self.metadata)
        self.signers = {}
        for name in KEYS:
            self.signers[name] = CryptoSigner.generate_ed25519()
            with open(self.key(name), "wb") as file:
                file.write(self.signers[name].private_bytes)

    def load_keys(self):
        self.signers = {}
        for name in KEYS:
            with open(self.key(name), "rb") as file:
                self.signers[name] = CryptoSigner(load_pem_private_key(file.read(), None))

    def write(self, name, signed, key):
        """Signs, and writes the file atomically and durably; what a parent lists of it."""
        metadata = Metadata(signed)
        metadata.sign(self.signers[key])
        data = metadata.to_bytes()
        path = os.path.join(self.metadata, name)
        with open(path + ".tmp", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".tmp", path)
        return MetaFile(signed.version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})

    def read(self, name):
        return Metadata.from_file(os.path.join(self.metadata, name)).signed

    def sync(self):
        folder = os.open(self.metadata, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def write_online(self, snapshot, timestamp, renew=True):
        if renew:
            timestamp.snapshot_meta = self.write(f"{snapshot.version}.snapshot.json", snapshot, "online")
        self.sync()
        self.write("timestamp.json", timestamp, "online")
        self.sync()

    def read_online(self):
        timestamp = self.read("timestamp.json")
        timestamp.version += 1
        timestamp.expires = EXPIRES
        return timestamp

    def read_snapshot(self, timestamp):
        snapshot = self.read(f"{timestamp.snapshot_meta.version}.snapshot.json")
        snapshot.version += 1
        snapshot.expires = EXPIRES
        return snapshot


def build(repository, count, bits):
    repository.make_keys()
    root = Root(expires=EXPIRES)
    for role, key in [("root", "root"), ("targets", "targets"), ("snapshot", "online"), ("timestamp", "online")]:
        root.add_key(repository.signers[key].public_key, role)
    repository.write("1.root.json", root, "root")
    public = repository.signers["targets"].public_key
    bins = SuccinctRoles([public.keyid], 1, bits, "bins")
    delegations = Delegations({public.keyid: public}, succinct_roles=bins)
    roles = {name: Targets(expires=EXPIRES) for name in bins.get_roles()}
    for number in range(count):
        file = target(number)
        roles[bins.get_role_for_target(file.path)].targets[file.path] = file
    meta = {"targets.json": repository.write("1.targets.json", Targets(expires=EXPIRES, delegations=delegations), "targets")}
    for name, role in roles.items():
        meta[f"{name}.json"] = repository.write(f"1.{name}.json", role, "targets")
    repository.write_online(Snapshot(expires=EXPIRES, meta=meta), Timestamp(expires=EXPIRES))


def add(repository, count, run):
    repository.load_keys()
    timestamp = repository.read_online()
    snapshot = repository.read_snapshot(timestamp)
    bins = repository.read(f"{snapshot.meta['targets.json'].version}.targets.json").delegations.succinct_roles
    changed = {}
    first = (1 << 32) + run * count
    for number in range(first, first + count):
        file = target(number)
        name = bins.get_role_for_target(file.path)
        if name not in changed:
            changed[name] = repository.read(f"{snapshot.meta[f'{name}.json'].version}.{name}.json")
        changed[name].targets[file.path] = file
    for name, role in changed.items():
        role.version += 1
        role.expires = EXPIRES
        snapshot.meta[f"{name}.json"] = repository.write(f"{role.version}.{name}.json", role, "targets")
    repository.write_online(snapshot, timestamp)


def renew(repository, both):
    repository.load_keys()
    timestamp = repository.read_online()
    snapshot = repository.read_snapshot(timestamp) if both else None
    repository.write_online(snapshot, timestamp, renew=both)


def main(folder, work, *numbers):
    repository = Repository(folder)
    start = time.perf_counter()
    if work == "build":
        build(repository, *map(int, numbers))
    elif work == "add":
        add(repository, *map(int, numbers))
    else:
        renew(repository, work == "online")
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_kib": peak}))


main(*sys.argv[1:])
