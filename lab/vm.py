"""Start a guest, wait for it, judge it."""
import functools
import json
import os
import re
import subprocess
import sys
import time

import boots
import verdict

LAB = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(LAB)
BUILD = os.path.join(TOP, "build")
# Another one than the machine's: QEMU=/path/to/qemu-system-x86_64 in the environment.
QEMU = os.environ.get("QEMU") or "qemu-system-x86_64"


def rel(path):
    return os.path.relpath(path, TOP)


@functools.cache
def qemu_version():
    """As text, such as "10.0.13"."""
    seen = ""
    try:
        seen = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as e:
        seen = str(e)
    m = re.search(r"version (\d+(?:\.\d+)+)", seen)
    if not m:
        sys.exit(f"lab: no QEMU\n  expected: {QEMU} --version names a version\n  seen:     {seen.strip() or 'nothing'}\n"
                 "  next:     lab/host, or QEMU=/path/to/qemu-system-x86_64")
    return m[1]


def qemu_lacks(boot):
    """Why this QEMU cannot do a boot, or None."""
    want = boots.BOOTS[boot].get("needs_qemu")
    if not want or [int(n) for n in qemu_version().split(".")] >= [int(n) for n in want.split(".")]:
        return None
    return f"needs QEMU {want}, here is {qemu_version()}"


def base_args(kernel, initrd, cmdline, smp, mem, accel):
    return [QEMU, *accel, "-cpu", "max", "-smp", str(smp), "-m", mem, "-no-reboot", "-nic", "none",
            "-kernel", kernel, "-initrd", initrd, "-append", cmdline]


def kvm_works(kernel, initrd):
    """Does a guest really start under KVM? /dev/kvm may be there and not work.

    The answer is kept in build/ (make clean forgets it).
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    cache = os.path.join(BUILD, "kvm-probe")
    key = f"{QEMU} {qemu_version()}: "
    try:
        with open(cache, encoding="utf-8") as f:
            text = f.read()
        if text.startswith(key):
            return text.startswith(key + "yes")
    except FileNotFoundError:
        pass
    print("lab: trying KVM, 20 s at most", file=sys.stderr)
    log = os.path.join(BUILD, "kvm-probe.log")
    if os.path.exists(log):
        os.unlink(log)
    args = base_args(kernel, initrd, boots.CMDLINE + " lab.suites= lab.state=0", 1, "1G", ["-accel", "kvm"])
    args += ["-M", "q35", "-display", "none", "-monitor", "none", "-serial", f"file:{log}"]
    try:
        r = subprocess.run(args, timeout=20, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        said = " ".join(r.stderr.split())
        why = f"QEMU ended with {r.returncode}: {said[-300:] or 'it says nothing'}"
    except subprocess.TimeoutExpired:
        why = "a guest did not get to its first program in 20 s"
    ok = "@lab hello" in verdict.read(log)
    with open(cache, "w", encoding="utf-8") as f:
        f.write(key + ("yes\n" if ok else f"no: {why}\n"))
    return ok


def accel(kernel, initrd, shift=None):
    if shift is not None:
        # The guest's clock counts instructions, 2^shift ns each, and jumps to the next timer
        # when all is idle: a device's delay costs nothing.
        return ["-accel", "tcg,thread=single", "-icount", f"shift={shift},sleep=off"]
    if kvm_works(kernel, initrd):
        return ["-accel", "kvm"]
    return ["-accel", "tcg,thread=multi"]


class Run:
    """One guest. start() it, then poll() until it returns the verdict.

    label: its name in the logs and results, the boot's if there is no other. tests: it runs the
    test suites, and gets what boots.py has for them. essential, seconds: see boots.Guest. listed:
    lab/tests.list, if its tests have to be those.
    """

    def __init__(self, kernel, initrd, boot, suites, logdir, *, kind="debug", timeout=600, smp=2, mem="2G",
                 icount=False, filter="", hugepages=64, extra="", live=None, label=None, tests=None,
                 essential=True, seconds=60, listed=None):
        self.boot, self.suites, self.logdir, self.kind = boot, suites, logdir, kind
        self.label = label or boot
        self.essential, self.seconds, self.listed = essential, seconds, listed
        self.timeout, self.live, self.filter = timeout, live, filter
        self.spec = boots.BOOTS[boot]
        os.makedirs(logdir, exist_ok=True)
        self.console, self.report = (os.path.join(logdir, n) for n in ("console.log", "report.log"))
        for f in (self.console, self.report, os.path.join(logdir, "qemu.trace")):
            if os.path.exists(f):
                os.unlink(f)
        tests = self.spec.get("tests", {}) if (kind == "debug" if tests is None else tests) else {}
        words = [boots.CMDLINE, boots.CMDLINE_DEBUG if kind == "debug" else "", self.spec["cmdline"],
                 tests.get("cmdline", ""), f"lab.suites={','.join(suites)}", f"lab.hugepages={hugepages}", extra]
        if filter:
            words.append(f"lab.filter={filter}")
        self.cmdline = " ".join(w for w in words if w)
        # icount=True is for measuring: one CPU, one ns per instruction, and never KVM. In the
        # table of boots it saves time, and 4 ns are about what an instruction takes here.
        shift = 0 if icount else None
        if tests.get("icount") and not icount and not kvm_works(kernel, initrd):
            shift = 2
        self.args = base_args(kernel, initrd, self.cmdline, 1 if icount else smp, mem,
                              accel(kernel, initrd, shift))
        self.args += self.spec["qemu"] + tests.get("qemu", [])
        self.args += boots.QEMU_TESTS if tests or kind == "debug" else []
        # Trace events go to QEMU's log.
        self.trace = os.path.join(logdir, "qemu.trace")
        self.args += ["-D", self.trace, *[w for e in verdict.QEMU_TRACE for w in ("-trace", e)]]
        self.args += ["-display", "none", "-monitor", "none", "-serial", f"file:{self.console}",
                      "-device", "virtio-serial-pci", "-chardev", f"file,id=verdict,path={self.report}",
                      "-device", "virtserialport,chardev=verdict,name=verdict"]
        self.shown = 0
        self.result = None

    def start(self):
        with open(os.path.join(self.logdir, "qemu.sh"), "w", encoding="utf-8") as f:
            f.write("# How this guest was started\n" + " ".join(f"'{a}'" if set(a) & set(" ,=") else a
                                                                 for a in self.args) + "\n")
        self.err = open(os.path.join(self.logdir, "qemu.err"), "w+", encoding="utf-8")
        self.begin = time.monotonic()
        self.proc = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=self.err, stderr=self.err)
        return self

    def show(self):
        """Pass new lines of the suites' output on to self.live."""
        if self.live:
            text = verdict.read(self.report)
            end = text.rfind("\n") + 1
            for line in verdict.suite_lines(text[self.shown:end]):
                self.live(line)
            self.shown = end

    def poll(self):
        over = time.monotonic() - self.begin > self.timeout
        if self.proc.poll() is None and not over:
            self.show()
            return None
        if self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        self.show()
        seconds = round(time.monotonic() - self.begin, 1)
        self.err.seek(0)
        err = self.err.read().strip()
        self.err.close()
        r = verdict.judge(verdict.Guest(
            self.spec.get("like", self.boot), self.kind, self.suites, verdict.read(self.report), verdict.read(self.console), self.cmdline,
            label=self.label, qemu=err + "\n" + verdict.read(self.trace), timed_out=self.timeout if over else None,
            filtered=bool(self.filter), listed=self.listed))
        if self.proc.returncode and not over:
            r["red"].insert(0, f"QEMU ended with {self.proc.returncode}: {err[-300:] or 'it says nothing'}")
        r.update(seconds=seconds, logs=rel(self.logdir), timed_out=over)
        with open(os.path.join(self.logdir, "verdict.json"), "w", encoding="utf-8") as f:
            for s in r["suites"]:
                f.write(json.dumps({k: v for k, v in s.items() if k not in ("tests", "values", "bad")}) + "\n")
            f.write(json.dumps({"verdict": "red" if r["red"] else "green",
                                **{k: v for k, v in r.items() if k != "suites"}, "splats": r["splats"][:50]}) + "\n")
        self.result = r
        return r

    def wait(self):
        self.start()
        try:
            while self.poll() is None:
                time.sleep(0.2)
        finally:
            if self.proc.poll() is None:
                self.proc.kill()
        return self.result


def estimate(run, done):
    """Seconds that a guest will take, from how slow this machine was with those that are done."""
    known = sum(r.seconds for r in done)
    slow = sum(r.result["seconds"] for r in done) / known if known else 1
    return run.seconds * max(slow, 1)


def run_all(runs, parallel, done, deadline=None):
    """Run guests, `parallel` at a time, the essential ones first; done(run) for each as it ends.

    Returns those for which the time until `deadline` (of time.time()) does not suffice.
    """
    todo = sorted(runs, key=lambda r: (not r.essential, -r.seconds))
    active, ended, left_out = [], [], []
    try:
        while todo or active:
            while todo and len(active) < parallel:
                run = todo.pop(0)
                left = deadline - time.time() if deadline else run.timeout
                if left <= 0 or (not run.essential and left < estimate(run, ended)):
                    left_out.append(run)
                    continue
                run.limit = left if left < run.timeout else None
                run.timeout = min(run.timeout, left)
                active.append(run.start())
            time.sleep(0.2)
            for run in list(active):
                if run.poll() is None:
                    continue
                active.remove(run)
                if run.result["timed_out"] and run.limit:
                    left_out.append(run)
                    continue
                ended.append(run)
                done(run)
    finally:
        for run in active:
            if run.proc.poll() is None:
                run.proc.kill()
    return left_out
