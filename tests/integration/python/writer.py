"""Writes TUF repositories with python-tuf, driven by one JSON object a line on stdin, answering one a line on stdout.

The tests use it so that tufgate never verifies only what its own signer wrote.
"""

import json
import os
import shutil
import sys
import traceback
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from functools import cache
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
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

TOP = ("root", "timestamp", "snapshot", "targets")
DAY = 86_400
# A second name for a key.
ALIAS = "0" * 64


def in_seconds(seconds):
    """A moment that many seconds from now, in whole seconds as the format wants."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).replace(microsecond=0)


def unpublished(signed):
    """Metadata one step before its version 1."""
    signed.version = 0
    return Metadata(signed)


def quoted(role):
    """The role's name as a file name and in URLs."""
    return quote(role, "")


def generate(kind):
    """A signer with a new key of that kind."""
    if kind == "ed25519":
        return CryptoSigner(Ed25519PrivateKey.generate())
    if kind == "ecdsa":
        return CryptoSigner(ec.generate_private_key(ec.SECP256R1()))
    if kind == "ecdsa-sha2-nistp256":
        return under_its_scheme(ec.generate_private_key(ec.SECP256R1()))
    if kind == "ecdsa-p384":
        return CryptoSigner(ec.generate_private_key(ec.SECP384R1()))
    if kind == "rsa-2048":
        return CryptoSigner(rsa.generate_private_key(65537, 2048))
    if kind == "rsa-4096":
        return large_rsa()
    raise ValueError(f"no kind of key {kind}")


def under_its_scheme(private):
    """The keytype of old, which is named like the scheme."""
    key = SSlibKey.from_crypto(private.public_key())
    return CryptoSigner(private, SSlibKey("0" + key.keyid[1:], key.scheme, key.scheme, key.keyval))


@cache
def large_rsa():
    """One key for all who want it, since making one takes seconds."""
    return CryptoSigner(rsa.generate_private_key(65537, 4096))


def maim(data, how):
    """Metadata whose signatures are one too few, one made to look like two, or each with one bit changed."""
    envelope = json.loads(data)
    first = envelope["signatures"][0]
    if how == "one":
        envelope["signatures"] = [first]
    elif how == "twice":
        envelope["signatures"] = [first, first]
    elif how == "renamed":
        envelope["signatures"] = [first, {"keyid": ALIAS, "sig": first["sig"]}]
    elif how == "flipped":
        for signature in envelope["signatures"]:
            signature["sig"] = signature["sig"][:-1] + format(int(signature["sig"][-1], 16) ^ 1, "x")
    else:
        raise ValueError(f"no way to maim: {how}")
    return json.dumps(envelope).encode()


class Repository:
    """One repository in a folder: `metadata/`, `targets/` and the anchor `root.json`."""

    def __init__(self, folder, flavour, consistent, hashes, description):
        self.folder = folder
        self.consistent = consistent
        self.hashes = hashes
        os.makedirs(os.path.join(folder, "metadata"))
        os.makedirs(os.path.join(folder, "targets"))
        kinds = description.get("keys", ["ed25519"])
        self.signers = {role: [generate(kind) for kind in kinds] for role in TOP}
        self.bins = None
        self.root = Metadata(Root(consistent_snapshot=consistent, expires=in_seconds(365 * DAY)))
        for role in TOP:
            for signer in self.signers[role]:
                self.root.signed.add_key(signer.public_key, role)
            self.root.signed.roles[role].threshold = len(kinds)
        self.timestamp = unpublished(Timestamp(expires=in_seconds(DAY)))
        self.snapshot = unpublished(Snapshot(expires=in_seconds(7 * DAY)))
        self.roles = {"targets": self._targets()}
        self.dirty = {"targets"}
        self.maimed = {}
        if flavour == "delegated":
            self._delegate()
        elif flavour == "bins":
            self._bins(4)
        elif flavour == "described":
            self._describe(description)
        elif flavour != "flat":
            raise ValueError(f"no flavour {flavour}")
        self._sign_root()
        with open(os.path.join(folder, "root.json"), "wb") as out:
            out.write(self.root.to_bytes())
        self.publish({})

    def _targets(self):
        return unpublished(Targets(expires=in_seconds(90 * DAY)))

    def _delegate(self):
        """targets -> projects (ECDSA P-256, two of two) -> dependencies (RSA-PSS); targets -> listings (ed25519)."""
        projects = [CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ecdsa()]
        dependencies = [CryptoSigner.generate_rsa()]
        listings = [CryptoSigner.generate_ed25519()]
        self._delegated("targets", "listings", listings, 1, ["simple/*/index.json"])
        self._delegated("targets", "projects/all", projects, 2, ["*/*.whl", "*/*.tar.gz", "*/*.metadata"])
        self._delegated("projects/all", "dependencies", dependencies, 1, ["demo-dep/*"])

    def _delegated(self, parent, name, signers, threshold, paths=None, prefixes=None, terminating=False):
        signed = self.roles[parent].signed
        if signed.delegations is None:
            signed.delegations = Delegations({}, {})
        role = DelegatedRole(name, [], threshold, terminating, paths=paths, path_hash_prefixes=prefixes)
        signed.delegations.roles[name] = role
        for signer in signers:
            signed.add_key(signer.public_key, name)
        self.roles[name] = self._targets()
        self.signers[name] = signers
        self.dirty |= {parent, name}

    def _describe(self, description):
        """Roles one after the other: by whom, which keys, what threshold, and what for."""
        for role in description.get("roles", []):
            signers = [generate(kind) for kind in role["keys"]]
            threshold = role.get("threshold", 1)
            if "bits" in role:
                self._sparse_bins(role, signers, threshold)
            else:
                selection = {name: role[name] for name in ("paths", "prefixes", "terminating") if name in role}
                self._delegated(role["by"], role["name"], signers, threshold, **selection)

    def _sparse_bins(self, role, signers, threshold):
        """Succinct roles of which only those are written that list something."""
        succinct = SuccinctRoles([], threshold, role["bits"], role["name"])
        signed = self.roles[role["by"]].signed
        signed.delegations = Delegations({}, None, succinct)
        for signer in signers:
            signed.add_key(signer.public_key, role["name"])
        self.bins = (succinct, signers)

    def _open_bin(self, role):
        if role not in self.roles and self.bins is not None and self.bins[0].is_delegated_role(role):
            self.roles[role] = self._targets()
            self.signers[role] = self.bins[1]

    def _bins(self, bits):
        signer = CryptoSigner.generate_ecdsa()
        succinct = SuccinctRoles([], 1, bits, "bin")
        delegations = Delegations({}, None, succinct)
        signed = self.roles["targets"].signed
        signed.delegations = delegations
        signed.add_key(signer.public_key, "bin")
        for name in succinct.get_roles():
            self.roles[name] = self._targets()
            self.signers[name] = [signer]
            self.dirty.add(name)

    def role_of(self, path):
        """The role that speaks for the path: the deepest one that the first matching delegations lead to."""
        role = "targets"
        while True:
            delegations = self.roles[role].signed.delegations
            if delegations is None:
                return role
            found = next(iter(delegations.get_roles_for_target(path)), None)
            if found is None:
                return role
            role = found[0]
            self._open_bin(role)

    def add(self, command):
        path = command["path"]
        if "file" in command:
            target = TargetFile.from_file(path, command["file"], ["sha256", "sha512"] if command.get("both") else ["sha256"])
        else:
            target = TargetFile(command["length"], {"sha256": command["sha256"]}, path)
        if command.get("custom") is not None:
            target.unrecognized_fields["custom"] = command["custom"]
        role = command.get("role") or self.role_of(path)
        self.roles[role].signed.targets[path] = target
        self.dirty.add(role)
        if command.get("store"):
            self._store(path, command["file"], target)
        return {"role": role}

    def _store(self, path, source, target):
        folder, _, name = path.rpartition("/")
        names = [name]
        if self.consistent:
            names = [f"{digest}.{name}" for digest in target.hashes.values()]
        os.makedirs(os.path.join(self.folder, "targets", folder), exist_ok=True)
        with open(source, "rb") as file:
            content = file.read()
        for name in names:
            with open(os.path.join(self.folder, "targets", folder, name), "wb") as out:
                out.write(content)

    def remove(self, command):
        role = command.get("role") or self.role_of(command["path"])
        del self.roles[role].signed.targets[command["path"]]
        self.dirty.add(role)
        return {"role": role}

    def publish(self, command):
        """Signs what changed, then a new snapshot and a new timestamp; `maimed` spoils the signatures of roles."""
        self.maimed = command.get("maimed", {})
        for role in sorted(self.dirty):
            metadata = self.roles[role]
            metadata.signed.version += 1
            metadata.signed.expires = in_seconds(command.get("targets_in", 90 * DAY))
            data = self._sign(metadata, role)
            self._write(role, metadata.signed.version, data)
            self.snapshot.signed.meta[f"{role}.json"] = self._meta(metadata.signed.version, data)
        self.dirty = set()
        self.snapshot.signed.version += 1
        self.snapshot.signed.expires = in_seconds(command.get("snapshot_in", 7 * DAY))
        data = self._sign(self.snapshot, "snapshot")
        self._write("snapshot", self.snapshot.signed.version, data)
        self.timestamp.signed.snapshot_meta = self._meta(self.snapshot.signed.version, data)
        return self.sign_timestamp(command)

    def sign_timestamp(self, command):
        """A new timestamp over the same snapshot."""
        self.timestamp.signed.version += 1
        self.timestamp.signed.expires = in_seconds(command.get("timestamp_in", DAY))
        data = self._sign(self.timestamp, "timestamp")
        self._replace("timestamp.json", data)
        return self.versions()

    def rotate(self, command):
        """Gives a top-level role a new key and writes the next root."""
        role = command["role"]
        fresh = CryptoSigner.generate_ed25519()
        signed = self.root.signed
        for keyid in list(signed.roles[role].keyids):
            signed.revoke_key(keyid, role)
        signed.add_key(fresh.public_key, role)
        old = self.signers[role] if role == "root" else []
        self.signers[role] = [fresh]
        signed.version += 1
        if "version" in command:
            self._top(role).version = command["version"] - 1
        self._sign_root(old)
        if role in self.roles:
            self.dirty.add(role)
        return self.publish(command)

    def set_version(self, command):
        """The next publication of the role has this version: how an owner begins anew after a fast-forward attack."""
        self._top(command["role"]).version = command["version"] - 1
        if command["role"] in self.roles:
            self.dirty.add(command["role"])
        return {}

    def require(self, command):
        """Gives a top-level role so many new keys, all of which must sign, and writes the next root."""
        role = command["role"]
        signed = self.root.signed
        for keyid in list(signed.roles[role].keyids):
            signed.revoke_key(keyid, role)
        self.signers[role] = [CryptoSigner.generate_ed25519() for _ in range(command["keys"])]
        for signer in self.signers[role]:
            signed.add_key(signer.public_key, role)
        signed.roles[role].threshold = command["keys"]
        return self._next_root(role)

    def alias(self, command):
        """Two keyids and a threshold of two for a role, and one key behind both: a thief who brought his key in twice."""
        role = command["role"]
        parent = self._delegator(role)
        delegation = parent.roles[role] if role in TOP else parent.delegations.roles[role]
        only = self.signers[role][0]
        for keyid in list(delegation.keyids):
            parent.revoke_key(keyid, role)
        public = only.public_key
        parent.add_key(public, role)
        parent.add_key(SSlibKey(ALIAS, public.keytype, public.scheme, deepcopy(public.keyval)), role)
        delegation.threshold = 2
        self.signers[role] = [only]
        return self._next_root(role) if role in TOP else {}

    def _delegator(self, role):
        if role in TOP:
            return self.root.signed
        name = next(name for name, metadata in self.roles.items() if role in self._delegated_by(metadata))
        self.dirty |= {name, role}
        return self.roles[name].signed

    @staticmethod
    def _delegated_by(metadata):
        delegations = metadata.signed.delegations
        return delegations.roles or {} if delegations else {}

    def _next_root(self, role):
        self.root.signed.version += 1
        self._sign_root()
        if role in self.roles:
            self.dirty.add(role)
        return {}

    def fast_forward(self, command):
        """A thief of the role's key signs a version that nobody will reach."""
        self._top(command["role"]).version = command["version"] - 1
        if command["role"] in self.roles:
            self.dirty.add(command["role"])
        return self.publish(command) if command["role"] != "timestamp" else self.sign_timestamp(command)

    def _top(self, role):
        tops = {"timestamp": self.timestamp, "snapshot": self.snapshot}
        return (tops.get(role) or self.roles[role]).signed

    def versions(self):
        versions = {role: metadata.signed.version for role, metadata in self.roles.items()}
        versions["root"] = self.root.signed.version
        versions["snapshot"] = self.snapshot.signed.version
        versions["timestamp"] = self.timestamp.signed.version
        return {"versions": versions, "expires": self.timestamp.signed.expires.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _sign_root(self, old=()):
        self.root.signatures.clear()
        for signer in [*self.signers["root"], *old]:
            self.root.sign(signer, append=True)
        self._replace(f"{self.root.signed.version}.root.json", self.root.to_bytes())

    def _sign(self, metadata, role):
        metadata.signatures.clear()
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        return maim(data, self.maimed[role]) if role in self.maimed else data

    def _meta(self, version, data):
        if not self.hashes:
            return MetaFile(version)
        return MetaFile.from_data(version, data, ["sha256"])

    def _write(self, role, version, data):
        name = quoted(role)
        self._replace(f"{version}.{name}.json" if self.consistent else f"{name}.json", data)

    def _replace(self, name, data):
        path = os.path.join(self.folder, "metadata", name)
        with open(path + ".new", "wb") as out:
            out.write(data)
        os.replace(path + ".new", path)


REPOSITORIES = {}


PENS = {}


def pen(command):
    """A key that signs whatever JSON it is given, and the forms that its public part has in metadata."""
    signer = generate(command["kind"])
    name = f"pen {len(PENS)}"
    PENS[name] = signer
    public = signer._private_key.public_key()
    if command["kind"] == "ed25519":
        point = public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    elif command["kind"].startswith("ecdsa"):
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex()
    else:
        point = None
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return {"pen": name, "key": signer.public_key.to_dict(), "pem": pem, "point": point}


def sign(command):
    """The signature over the canonical form of a JSON text."""
    canonical = encode_canonical(json.loads(command["text"])).encode()
    return {"sig": PENS[command["pen"]].sign(canonical).signature}


def new(command):
    description = command.get("description", {})
    repository = Repository(
        command["folder"], command["flavour"], command["consistent"], command["hashes"], description
    )
    REPOSITORIES[command["folder"]] = repository
    return repository.versions()


def answer(command):
    op = command["op"]
    if op in ("new", "pen", "sign"):
        return {"new": new, "pen": pen, "sign": sign}[op](command)
    repository = REPOSITORIES[command["folder"]]
    if op == "forget":
        del REPOSITORIES[command["folder"]]
        return {}
    actions = {
        "add": repository.add,
        "remove": repository.remove,
        "publish": repository.publish,
        "timestamp": repository.sign_timestamp,
        "rotate": repository.rotate,
        "fast_forward": repository.fast_forward,
        "set_version": repository.set_version,
        "require": repository.require,
        "alias": repository.alias,
        "fork": lambda _: fork(repository, command["into"]),
    }
    return actions[op](command)


def fork(repository, into):
    """The same repository with the same keys in another folder, to be continued differently from here."""
    shutil.copytree(repository.folder, into)
    keys = repository.signers
    repository.signers = {}
    twin = deepcopy(repository)
    repository.signers = keys
    twin.signers = keys.copy()
    twin.folder = into
    REPOSITORIES[into] = twin
    return twin.versions()


def main():
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception:  # the test that asked gets the trace
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), flush=True)


main()
