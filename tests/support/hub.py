"""A stand-in for the Hugging Face hub: the parts of its interface that `huggingface_hub` uses, kept in memory; hub_server serves it.

Repositories have branches of commits; files over a size go by Git LFS. It answers as the hub does, headers and all.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import yaml

LFS_FROM = 50_000  # bytes; the hub decides by size and suffix

Files = dict[str, bytes]


@dataclass
class Repository:
    """branches: name -> commit; commits: sha -> files."""

    kind: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=lambda: {"main": ""})
    commits: dict[str, Files] = field(default_factory=dict)

    def commit(self, files: Files, branch: str = "main", delete: bool = False) -> str:
        """Add files to a branch; returns the commit."""
        before = {} if delete else self.commits.get(self.branches.get(branch, ""), {})
        after = {**before, **files}
        text = repr([len(self.commits), branch, sorted((n, hashlib.sha1(c).hexdigest()) for n, c in after.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = after
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str | None) -> str | None:
        found = self.branches.get(revision or "main", revision)
        return found if found in self.commits else None

    @property
    def files(self) -> Files:
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """url: to be HF_ENDPOINT. users: token -> (name, organisations, may write)."""

    url: str = ""
    users: dict[str, tuple[str, list[str], bool]] = field(default_factory=dict)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # of LFS, by SHA-256
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)  # of commits
    broken: int | None = None  # a status that everything is answered with
    close: Callable[[], None] = lambda: None  # then nobody listens at its port
    closed: bool = False

    def data_set(self, name: str, files: Files, **options: Any) -> Repository:
        found = self.repositories[("datasets", name)] = Repository("datasets", **options)
        found.commit(files)
        return found

    def model(self, name: str, files: Files, **options: Any) -> Repository:
        found = self.repositories[("models", name)] = Repository("models", **options)
        found.commit(files)
        return found


class Refusal(Exception):
    """An answer with another status than 200; `more` stands in its body."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: str):
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more


@dataclass
class Request:
    """What a route sees."""

    hub: Hub
    method: str
    path: str
    query: dict[str, list[str]]
    token: str | None
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def user(self) -> tuple[str, list[str], bool] | None:
        if self.token is None:
            return None
        if self.token not in self.hub.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.users[self.token]

    def owns(self, owner: str) -> bool:
        return self.user is not None and owner in (self.user[0], *self.user[1]) and self.user[2]

    def repository(self, kind: str, name: str) -> Repository:
        found, _ = self.hub.repositories.get((kind, name)), self.user
        if found is None or (found.private and not self.owns(name.partition("/")[0])):
            raise Refusal(404 if self.token else 401, "Repository not found", "RepoNotFound")
        if found.gated:
            raise Refusal(403, "Access to it is restricted", "GatedRepo")
        return found

    def writable(self, kind: str, name: str) -> Repository:
        found = self.repository(kind, name)
        if not self.owns(name.partition("/")[0]):
            raise Refusal(403, f"Forbidden: you must have write access to {name}")
        return found

    def commit(self, kind: str, name: str, revision: str | None) -> tuple[Repository, str]:
        repository = self.repository(kind, name)
        sha = repository.resolve(unquote(revision) if revision else None)
        if sha is None:
            raise Refusal(404, "Invalid rev id", "RevisionNotFound")
        return repository, sha


@dataclass
class Reply:
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


NAME = "(?P<name>[^/]+/[^/]+)"
KIND = "(?P<kind>models|datasets)"
ROUTES: list[tuple[str, str, Any]] = []


def route(method: str, pattern: str):
    def add(answer):
        ROUTES.append((method, pattern, answer))
        return answer

    return add


@route("GET", "/api/whoami-v2")
def whoami(r: Request) -> Reply:
    if r.user is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return Reply({"type": "user", "name": r.user[0], "orgs": [{"name": name} for name in r.user[1]]})


@route("POST", "/api/repos/create")
def create(r: Request) -> Reply:
    wanted = r.json
    if r.user is None:
        raise Refusal(401, "Invalid username or password.")
    owner = wanted.get("organization") or r.user[0]
    name, kind = f"{owner}/{wanted['name']}", f"{wanted.get('type') or 'model'}s"
    if not r.owns(owner):
        raise Refusal(403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{owner}"')
    if (kind, name) in r.hub.repositories:
        raise Refusal(409, "You already created this model repo", url=f"{r.hub.url}/{name}")
    private = wanted.get("private") or wanted.get("visibility") == "private"
    r.hub.model(name, {".gitattributes": b""}, private=bool(private))
    return Reply({"url": f"{r.hub.url}/{name}"})


@route("POST", "/api/validate-yaml")
def validate(r: Request) -> Reply:
    """As the hub judges the front matter of a card, in what concerns us."""
    front = r.json["content"].split("---\n")[1]
    found = yaml.safe_load(front)
    bases = found.get("base_model", [])
    errors = [
        {"message": f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.'}
        for base in ([bases] if isinstance(bases, str) else bases)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", base)
    ]
    return Reply({"errors": errors, "warnings": []}, status=400 if errors else 200)


@route("GET", f"/api/{KIND}/{NAME}(?:/revision/(?P<revision>[^/]+))?")
def info(r: Request, kind: str, name: str, revision: str | None) -> Reply:
    repository, sha = r.commit(kind, name, revision)
    files = [{"rfilename": file} for file in repository.commits[sha]]
    found = {"_id": "1", "id": name, "sha": sha, "private": repository.private, "siblings": files, "tags": []}
    return Reply(found | {"downloads": 0, "likes": 0, "gated": False, "disabled": False})


@route("GET", f"/api/{KIND}/{NAME}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
def tree(r: Request, kind: str, name: str, revision: str, path: str | None) -> Reply:
    repository, sha = r.commit(kind, name, revision)
    below = f"{unquote(path)}/" if path else ""
    files = {file: content for file, content in repository.commits[sha].items() if file.startswith(below)}
    if not files:
        raise Refusal(404, f'{path} does not exist on "main"', "EntryNotFound")
    found = {}
    for file, content in files.items():
        parts = file[len(below) :].split("/")
        for depth in range(1, len(parts)):
            folder = below + "/".join(parts[:depth])
            found[folder] = {
                "type": "directory",
                "path": folder,
                "oid": hashlib.sha1(folder.encode()).hexdigest(),
                "size": 0,
            }
        found[file] = {"type": "file", "path": file, "size": len(content), **identity(content)}
    deep = r.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    return Reply([entry for name, entry in found.items() if deep or "/" not in name[len(below) :]])


def identity(content: bytes) -> dict[str, Any]:
    """oid, and what LFS says of a large file."""
    if len(content) < LFS_FROM:
        return {"oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    sha = hashlib.sha256(content).hexdigest()
    return {"oid": sha[:40], "lfs": {"oid": sha, "size": len(content), "pointerSize": 130}}


@route("POST", f"/api/{KIND}/{NAME}/preupload/(?P<revision>[^/]+)")
def preupload(r: Request, kind: str, name: str, revision: str) -> Reply:
    repository = r.writable(kind, name)
    there = repository.commits.get(repository.resolve(unquote(revision)) or "", {})
    files = []
    for file in r.json["files"]:
        mode = "lfs" if file["size"] >= LFS_FROM else "regular"
        old = there.get(file["path"])
        known = {} if old is None else {"oid": (identity(old).get("lfs") or identity(old))["oid"]}
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
    return Reply({"files": files})


@route("POST", rf"/{NAME}\.git/info/lfs/objects/batch")
def batch(r: Request, name: str) -> Reply:
    r.writable("models", name)
    objects = []
    for wanted in r.json["objects"]:
        href = f"{r.hub.url}/lfs/{wanted['oid']}"
        actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        objects.append(wanted | ({} if wanted["oid"] in r.hub.objects else {"actions": actions}))
    return Reply({"objects": objects, "transfer": "basic"})


@route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def put(r: Request, oid: str) -> Reply:
    if hashlib.sha256(r.content).hexdigest() != oid:
        raise Refusal(400, "the content has another SHA-256")
    r.hub.objects[oid] = r.content
    return Reply()


@route("POST", "/lfs/(?P<oid>[0-9a-f]{64})/verify")
def verify(r: Request, oid: str) -> Reply:
    if oid not in r.hub.objects or len(r.hub.objects[oid]) != r.json["size"]:
        raise Refusal(404, "no such object")
    return Reply({})


@route("POST", f"/api/{KIND}/{NAME}/branch/(?P<branch>[^/]+)")
def branch(r: Request, kind: str, name: str, branch: str) -> Reply:
    repository, branch = r.writable(kind, name), unquote(branch)
    if re.search(r"\.\.|[\s~^:?*\[\\]", branch):
        raise Refusal(400, "Invalid reference name")
    if branch in repository.branches:
        raise Refusal(409, "Reference already exists")
    repository.branches[branch] = repository.branches["main"]
    return Reply({})


@route("POST", f"/api/{KIND}/{NAME}/commit/(?P<revision>[^/]+)")
def commit(r: Request, kind: str, name: str, revision: str) -> Reply:
    repository, revision, files = r.writable(kind, name), unquote(revision), {}
    if revision not in repository.branches:
        raise Refusal(404, "Invalid rev id", "RevisionNotFound")
    for line in map(json.loads, r.content.splitlines()):
        value = line["value"]
        match line["key"]:
            case "header":
                r.hub.messages.append(value["summary"])
            case "file":
                files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                files[value["path"]] = r.hub.objects[value["oid"]]
            case other:
                raise AssertionError(other)
    sha = repository.commit(files, revision)
    return Reply({"success": True, "commitOid": sha, "commitUrl": f"{r.hub.url}/{name}/commit/{sha}"})


@route("(?:GET|HEAD)", f"/(?P<data>datasets/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(r: Request, data: str | None, name: str, revision: str, path: str) -> Reply:
    repository, sha = r.commit("datasets" if data else "models", name, revision)
    content = repository.commits[sha].get(unquote(path))
    if content is None:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    found = identity(content)
    etag = (found.get("lfs") or found)["oid"]
    return Reply(content, {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"})
