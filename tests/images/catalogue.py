"""The images that tests ask for, by the names they ask: what critest 1.36 pulls, and our own.

Everything comes from Debian packages of this machine, so that no registry is needed. Plain `busybox`, not
`busybox-static`: the shell of the latter runs its applets itself and would read paths that runc masks.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests import machine
from tests.images import layout
from tests.images.files import Entry, directory, hard_link, link, program, text
from tests.images.layout import Image, architecture
from tests.parts.build import INSIDE, cache
from tests.parts.cargo import NoToolchain

BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
NGINX = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
HTTPD = "registry.k8s.io/e2e-test-images/httpd:2.4.39-4"
PAUSE = "registry.k8s.io/pause:3.10"
SHORT = "docker.io/library/busybox:latest"
STAGING = "gcr.io/k8s-staging-cri-tools"
VOLUMES = f"{STAGING}/crisp-volumes:1"

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
wheel:x:10:root
www-data:x:33:
operator:x:37:
nogroup:x:65534:
"""
# Applets that critest uses and Debian's busybox lacks.
_PGREP = """\
#!/bin/sh
found=1
for name in /proc/[0-9]*/comm; do
    if read -r comm 2>/dev/null <"$name" && [ "$comm" = "$1" ]; then
        name=${name%/comm}
        echo "${name#/proc/}"
        found=0
    fi
done
exit $found
"""
_BRCTL = """\
#!/bin/sh
[ "$1" = addbr ] && exec ip link add "$2" type bridge
echo "brctl: only addbr is here" >&2
exit 1
"""
_NGINX = """\
daemon off;
user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events {}
http {
    access_log /dev/stdout;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server { listen PORT; root /www; }
}
"""
_PAGE = "<html><body><h1>Welcome to nginx!</h1></body></html>\n"


def images() -> list[Image]:
    """Every image, sharing the busybox layer."""
    base = _busybox()
    shell = {"Cmd": ["sh"]}
    made = [
        Image(
            names=(BUSYBOX, SHORT, "docker.io/library/busybox:1.35"), layers=[base], config=shell, index=True
        ),
        Image(names=(NGINX,), layers=[base, _nginx(80)], config={"Cmd": ["nginx"], "StopSignal": "SIGQUIT"}),
        Image(
            names=(f"{STAGING}/hostnet-nginx-{architecture()}:latest",),
            layers=[base, _nginx(12003)],
            config={"Cmd": ["nginx"]},
        ),
        Image(names=(HTTPD,), layers=[base, _httpd()], config={"Cmd": ["/bin/serve"]}),
        Image(
            names=("registry.k8s.io/e2e-test-images/nonewprivs:1.3",),
            layers=[base, list(program(Path("/usr/bin/id"), "bin/effective-id", 0o4755))],
            # One line in one write: the log would show two pieces as two lines.
            config={"Cmd": ["sh", "-c", 'echo "Effective uid: $(/bin/effective-id -u)"']},
        ),
        Image(
            names=(f"{STAGING}/test-image-predefined-group:latest",),
            layers=[base, _accounts()],
            config={**shell, "User": "1000"},
        ),
    ]
    for name, user in {
        "uid": "1002", "username": "www-data", "uid-group": "1003:1004", "username-group": "www-data:1004",
    }.items():  # fmt: skip
        made.append(
            Image(
                names=(f"{STAGING}/test-image-user-{name}:latest",),
                layers=[base],
                config={**shell, "User": user},
            )
        )
    made.append(
        Image(
            names=(VOLUMES,),
            layers=[base, _volumes()],
            config={**shell, "Volumes": {path: {} for path in ("/data", "/fresh/deep", "/leak", "/plain")}},
        )
    )
    for content, names in {
        "latest": ("test-image-latest:latest",),
        "tag": ("test-image-tag:test",),
        "all": ("test-image-tag:all",),
        "digest": ("test-image-digest:latest",),
        "tags": ("test-image-tags:1", "test-image-tags:2", "test-image-tags:3"),
        "1": ("test-image-1:latest",),
        "2": ("test-image-2:latest",),
        "3": ("test-image-3:latest",),
    }.items():
        full = tuple(f"{STAGING}/{name}" for name in names)
        made.append(Image(names=full, layers=[base, [text("content", content)]], config=shell))
    for version in ("3.9", "3.10"):
        made.append(
            Image(
                names=(f"registry.k8s.io/pause:{version}", f"k8s.gcr.io/pause:{version}"),
                layers=[[*program(Path("/usr/bin/catatonit"), "pause"), text("version", version)]],
                config={"Entrypoint": ["/pause", "-P"], "User": "65535:65535"},
            )
        )
    return made


def written() -> Path:
    """The directory of an OCI layout with every image: made once for each state of this code and machine."""
    top = cache() / f"images-{_key()}"
    if not top.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache(), prefix="images.") as scratch:
            made = Path(scratch, "made")
            layout.write(made, images())
            try:
                made.rename(top)
            except OSError:  # another run was first
                if not top.exists():
                    raise
    return top


def _key() -> str:
    told = hashlib.sha256()
    for source in (
        *sorted(Path(__file__).parent.glob("*.py")),
        _busybox_program(),
        Path("/etc/debian_version"),
    ):
        told.update(source.read_bytes())
    return told.hexdigest()[:16]


def _busybox_program() -> Path:
    found = shutil.which("busybox", path="/usr/bin:/bin")
    if found is None:
        raise FileNotFoundError("busybox is not installed")
    return Path(found)


def _busybox() -> list[Entry]:
    source = _busybox_program()
    applets = subprocess.run([source, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return [
        *(
            directory(name)
            for name in ("dev", "etc", "home", "proc", "sys", "usr/bin", "usr/sbin", "var/www")
        ),
        directory("root", 0o700),
        directory("tmp", 0o1777),
        link("var/run", "/run"),
        directory("run"),
        text("etc/passwd", _PASSWD),
        text("etc/group", _GROUP),
        text("etc/hostname", "image\n"),
        *program(source, "bin/busybox"),
        # Names of one file, not links to it: critest hides /bin/ls, and a mount over a link hides its target.
        *(hard_link(f"bin/{applet}", "bin/busybox") for applet in applets if applet != "busybox"),
        *program(Path("/usr/bin/ipcs"), "bin/ipcs"),
        text("bin/pgrep", _PGREP, 0o755),
        text("bin/brctl", _BRCTL, 0o755),
    ]


def _accounts() -> list[Entry]:
    """A user who belongs to a group in the image's /etc/group alone."""
    return [
        text("etc/passwd", f"{_PASSWD}default-user:x:1000:1000::/home/default-user:/bin/sh\n"),
        text("etc/group", f"{_GROUP}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"),
        directory("home/default-user", uid=1000, gid=1000),
    ]


def _volumes() -> list[Entry]:
    """Places for VOLUMEs: one with content, one that is a file, and one that points out of the image."""
    return [
        directory("data", 0o750, uid=33, gid=7),
        Entry(path="data/file", mode=0o640, content=b"from the image\n", uid=33, gid=33),
        hard_link("data/same", "data/file"),
        link("data/away", "../../../../../../etc/apt"),
        Entry(path="data/tool", mode=0o755, content=b"#!/bin/sh\necho it runs\n"),
        directory("data/sub/empty", 0o1777),
        link("leak", "../../../../../../etc/apt"),
        text("plain", "a file\n"),
        link("out", "/../../../etc"),
    ]


def _httpd() -> list[Entry]:
    serve = "#!/bin/sh\necho 'httpd: serving /www on port 80'\nexec httpd -f -v -p 80 -h /www\n"
    return [text("bin/serve", serve, 0o755), text("www/index.html", "<html><body>It works!</body></html>\n")]


def _nginx(port: int) -> list[Entry]:
    """Debian's nginx, taken out of its package: installing it would start it."""
    return [
        *program(unpacked("nginx") / "usr/sbin/nginx", "usr/sbin/nginx"),
        directory("var/lib/nginx"),
        directory("var/log/nginx"),
        text("etc/nginx/nginx.conf", _NGINX.replace("PORT", str(port))),
        text("www/index.html", _PAGE),
    ]


def unpacked(package: str) -> Path:
    """The files of a Debian package that is not installed, in the cache.

    Raises NoToolchain in the virtual machine, which has no network.
    """
    top = cache() / f"debian-{package}"
    if not top.exists():
        if INSIDE:
            raise NoToolchain(f"the virtual machine has no {package}: tests/node/prepare.sh")
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache(), prefix=f"debian-{package}.") as scratch:
            Path(scratch).chmod(0o755)  # apt downloads as a user of its own
            subprocess.run(
                [*machine.outside(), "apt-get", "download", "-q", package],
                cwd=scratch,
                check=True,
                capture_output=True,
            )
            (archive,) = Path(scratch).glob("*.deb")
            made = Path(scratch, "made")
            subprocess.run(["dpkg-deb", "--extract", archive, made], check=True)
            made.rename(top)
    return top
