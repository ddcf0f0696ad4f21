"""A kata-runtime 1.x of the tests: its command line and its ways, with crun in place of a virtual machine.

It follows what is known of kata-runtime 1.13 line by line: the verbs and flags it has and lacks, no
`features`, a sandbox container that must be there before the others, and a pid file that names a `kata-shim`
for each container, which carries the streams and ends with the status. Signals to that process do not reach
the container. `install` writes the program; every call is noted in the file `calls` beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = """#!{python}
import ctypes, json, os, signal, subprocess, sys, time
CRUN, CALLS = {crun!r}, {calls!r}
HAS = {{"create", "start", "state", "kill", "delete", "exec", "events", "update", "pause", "resume", "ps",
       "list", "run", "spec"}}
TYPES = {{"io.kubernetes.cri.container-type": "io.kubernetes.cri.sandbox-id",
         "io.kubernetes.cri-o.ContainerType": "io.kubernetes.cri-o.SandboxID"}}


def say(words):
    if log:
        open(log, "a").write(json.dumps({{"level": "error", "msg": words}}) + "\\n")
    sys.stderr.write(words + "\\n")
    sys.exit(1)


def value(name, default=""):
    for place, word in enumerate(sys.argv):
        if word.startswith(f"--{{name}}="):
            return word.split("=", 1)[1]
        if word == f"--{{name}}":
            return sys.argv[place + 1]
    return default


if "--version" in sys.argv:
    print("kata-runtime  : 1.13.0-alpha0\\n   commit   : 0\\n   OCI specs: 1.0.1-dev")
    sys.exit(0)
log, root = value("log"), value("root", "/run/kata")
verb = next((word for word in sys.argv[1:] if word in HAS), "")
with open(CALLS, "a") as calls:
    calls.write((verb or " ".join(sys.argv[1:])) + "\\n")
if not verb:
    say("No help topic for '" + sys.argv[-1] + "'")
container = sys.argv[-1] if verb != "kill" else sys.argv[-2]
place = os.path.join(root, container)
inner = ["--root=" + os.path.join(root, "guest")]


def shim():
    # Carries the streams and ends with the container's status; what is asked of it by signals goes nowhere.
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, for the container's process
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    pid_file = os.path.join(place, "inner-pid")
    made = subprocess.run(  # its words go to a file: stderr is the container's
        [CRUN, *inner, "--log=" + os.path.join(place, "said"), "--log-format=json", "create",
         "--bundle", value("bundle"), "--pid-file", pid_file, container],
        restore_signals=True, preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 10, 15)])
    open(os.path.join(place, "created.new"), "w").write(str(made.returncode))
    os.rename(os.path.join(place, "created.new"), os.path.join(place, "created"))
    if made.returncode:
        os._exit(1)
    pid = int(open(pid_file).read())
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    while True:
        done, status = os.wait()
        if done == pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


if verb == "create":
    for flag in ("--no-new-keyring", "--preserve-fds"):
        if any(word.split("=")[0] == flag for word in sys.argv):
            say("Incorrect Usage: flag provided but not defined: " + flag.lstrip("-"))
    config = json.load(open(os.path.join(value("bundle"), "config.json")))
    notes = config.get("annotations", {{}})
    kinds = [(notes[a], notes.get(b, "")) for a, b in TYPES.items() if a in notes]
    kind, sandbox = kinds[0] if kinds else ("sandbox", container)
    if kind == "container" and not os.path.isdir(os.path.join(root, sandbox)):
        say("Container " + container + ": sandbox " + sandbox + " does not exist")
    if os.path.exists(place):
        say("ID already in use: " + container)
    os.makedirs(place)
    child = os.fork()
    if child == 0:
        shim()
    while not os.path.exists(os.path.join(place, "created")):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.01)
    if open(os.path.join(place, "created")).read() != "0":
        words = json.loads(open(os.path.join(place, "said")).readlines()[-1])["msg"]
        subprocess.run(["rm", "-rf", place])
        say(words or "the guest failed")
    open(os.path.join(place, "shim-pid"), "w").write(str(child))
    temporary = value("pid-file") + ".tmp"
    open(temporary, "w").write(str(child))
    os.rename(temporary, value("pid-file"))
    sys.exit(0)
if verb == "delete" and not os.path.isdir(place):
    sys.exit(0)
if not os.path.isdir(place):
    say("Container ID (" + container + ") does not exist")
if verb == "state":
    done = subprocess.run([CRUN, *inner, "state", container], capture_output=True)
    answer = json.loads(done.stdout)
    answer["pid"] = int(open(os.path.join(place, "shim-pid")).read()) if answer["status"] != "stopped" else 0
    print(json.dumps(answer))
    sys.exit(0)
if verb == "kill":
    done = subprocess.run([CRUN, *inner, "state", container], capture_output=True)
    if done.returncode == 0 and json.loads(done.stdout)["status"] == "stopped":
        say("Container " + container + " not ready, running or paused, cannot send a signal")
words = [word for word in sys.argv[sys.argv.index(verb):]]
done = subprocess.run([CRUN, *inner, *(["--log=" + log, "--log-format=json"] if log else []), *words])
if verb == "delete" and done.returncode == 0:
    subprocess.run(["rm", "-rf", place])
sys.exit(done.returncode)
"""


def install(directory: Path, crun: str = "/usr/bin/crun") -> Path:
    """Write the double; the path of its program."""
    program = directory / "kata-runtime"
    program.write_text(_PROGRAM.format(python=sys.executable, crun=crun, calls=str(directory / "calls")))
    program.chmod(0o755)
    return program


def calls(directory: Path) -> list[str]:
    """The verbs that it was called with, in order."""
    path = directory / "calls"
    return path.read_text().split("\n") if path.exists() else []
