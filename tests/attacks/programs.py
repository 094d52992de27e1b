"""Hostile programs. Each is told where its targets are (`world`, JSON on stdin) and says so if it gets through.

`OUTSIDE`: those that are harmless enough to be run without isolation, where they must get through: a program that
could not do harm anywhere proves nothing.
"""

PRELUDE = r"""
import ctypes, gc, json, os, resource, signal, socket, subprocess, sys, threading
world = json.loads(sys.stdin.read())
libc = ctypes.CDLL(None, use_errno=True)
def through(): os.write(1, b"BREACHED\n")
def call(x86, arm, *args):
    libc.syscall.restype = ctypes.c_long
    number = x86 if os.uname().machine == "x86_64" else arm
    got = libc.syscall(number, *args)
    return got >= 0 or ctypes.get_errno() not in (1, 38)  # neither EPERM nor ENOSYS: the kernel looked at it
"""

ATTACKS = {
    # network
    "tcp": 'socket.create_connection(("127.0.0.1", world["tcp"]), 1).sendall(b"x"); through()',
    "tcp_listen": 's = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); through()',
    "udp": 'socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", world["udp"])); through()',
    "abstract_unix": 'socket.socket(socket.AF_UNIX).connect("\\0" + world["abstract"]); through()',
    "abstract_unix_from_a_pair": (
        'a, b = socket.socketpair(type=socket.SOCK_DGRAM); a.sendto(b"x", "\\0" + world["abstract_dgram"]); through()'
    ),
    "unix_path": 'socket.socket(socket.AF_UNIX).connect(world["unix_path"]); through()',
    "netlink": "socket.socket(16, 3, 0); through()",
    # files
    "read_passwd": 'open("/etc/passwd").read() and through()',
    "read_expected_file": 'open(world["file"]).read() and through()',
    "read_expected_by_descriptor_path": """
for fd in range(256):
    try:
        if open(f"/proc/{world['supervisor']}/fd/{fd}").read(): through()
    except OSError: pass
""",
    "list_its_directory": 'os.listdir(os.path.dirname(world["file"])) and through()',
    "list_root": 'os.listdir("/") and through()',
    "list_tmp": 'os.listdir("/tmp"); through()',
    "list_home": 'os.listdir(os.path.expanduser("~" + world["user"])); through()',
    "read_the_graders_source": 'open(world["source"]).read() and through()',
    "import_the_grader": 'sys.path.append(world["repository"]); import rewards; through()',
    "block_device": """
import glob
for path in glob.glob("/dev/[svn][dv]*") + ["/dev/mem", "/dev/kmsg"]:
    try: open(path, "rb").read(1) and through()
    except OSError: pass
""",
    "write_a_file": 'open(world["folder"] + "/new", "w").write("x"); through()',
    "write_cwd": 'open("new", "w").write("x"); through()',
    "write_tmp": 'open("/tmp/new-" + world["token"], "w").write("x"); through()',
    "write_shm": 'open("/dev/shm/new-" + world["token"], "w").write("x"); through()',
    "write_stdlib": 'open(os.path.dirname(os.__file__) + "/new.py", "w").write("x"); through()',
    "overwrite": 'open(world["file"], "w").write("1"); through()',
    "truncate": 'os.truncate(world["file"], 0); through()',
    "unlink": 'os.unlink(world["file"]); through()',
    "rename": 'os.rename(world["file"], world["file"] + "2"); through()',
    "mkdir": 'os.mkdir(world["folder"] + "/d"); through()',
    "symlink": 'os.symlink("/etc/passwd", world["folder"] + "/l"); through()',
    "chmod": 'os.chmod(world["file"], 0o777); through()',
    "utime": 'os.utime(world["file"]); through()',
    "setxattr": 'os.setxattr(world["file"], "user.x", b"1"); through()',
    "mkfifo": 'os.mkfifo(world["folder"] + "/f"); through()',
    "file_handle": 'call(303, 264, -100, world["file"].encode(), b"\\0" * 64, b"\\0" * 4, 0) and through()',
    # the environment and other processes
    "environment": 'any("TOKEN" in k for k in os.environ) and through()',
    "environment_of_libc": """
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
i = 0
while environ and environ[i]:
    if b"TOKEN" in environ[i]: through()
    i += 1
""",
    "proc_environ": """
for pid in ("self", "1", str(os.getppid()), str(world["supervisor"]), str(world["victim"])):
    for name in ("environ", "cmdline", "maps", "status"):
        try: open(f"/proc/{pid}/{name}").read() and through()
        except OSError: pass
""",
    "proc_mem": """
for pid in ("self", str(os.getppid()), str(world["supervisor"])):
    try: open(f"/proc/{pid}/mem", "rb"); through()
    except OSError: pass
""",
    "proc_list": 'any(name.isdecimal() for name in os.listdir("/proc")) and through()',
    "sysfs": 'os.listdir("/sys") and through()',
    "kill_victim": 'os.kill(world["victim"], 9); through()',
    "stop_victim": 'os.kill(world["victim"], signal.SIGSTOP); through()',
    "kill_parent": "os.kill(os.getppid(), 9); through()",
    "stop_parent": "os.kill(os.getppid(), signal.SIGSTOP); through()",
    "kill_supervisor": 'os.kill(world["supervisor"], 9); through()',
    "kill_all": "os.kill(-1, 9); through()",
    "kill_group": "os.killpg(0, 9); through()",
    "kill_by_thread": 'call(200, 130, world["victim"], 9) and through()',
    "kill_by_queue": 'call(129, 138, world["victim"], 9, b"\\0" * 128) and through()',
    "kill_by_pidfd": 'call(434, 434, world["victim"], 0) and through()',
    "kill_by_owner": """
r, w = os.pipe()
import fcntl
fcntl.fcntl(r, 8, world["victim"]); fcntl.fcntl(r, 10, 9)  # F_SETOWN, F_SETSIG
fcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | 0o20000)  # O_ASYNC
os.write(w, b"x")
""",
    "stop_itself": "os.kill(os.getpid(), signal.SIGSTOP); through()",
    "ptrace": 'libc.ptrace(16, world["victim"], 0, 0) == 0 and through()',
    "ptrace_parent": "libc.ptrace(16, os.getppid(), 0, 0) == 0 and through()",
    "ptrace_me": "libc.ptrace(0, 0, 0, 0) == 0 and through()",
    "process_vm_readv": """
class V(ctypes.Structure): _fields_ = [("p", ctypes.c_void_p), ("n", ctypes.c_size_t)]
here = ctypes.create_string_buffer(8)
for pid in (os.getppid(), world["supervisor"]):
    ours, theirs = V(ctypes.addressof(here), 8), V(id(None), 8)
    if libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) > 0:
        through()
""",
    "setpriority_of_others": 'os.setpriority(os.PRIO_PROCESS, world["victim"], 19); through()',
    "affinity_of_others": 'os.sched_setaffinity(world["victim"], {0}); through()',
    "limits_of_others": 'resource.prlimit(world["victim"], resource.RLIMIT_CPU, (1, 1)); through()',
    "oom_score": 'open("/proc/self/oom_score_adj", "w").write("-1"); through()',
    # new processes and programs
    "fork": "os.fork() or os._exit(0); through()",
    "vfork": "libc.vfork() == 0 and os._exit(0)\nctypes.get_errno() == 1 or through()",
    "clone3": 'call(435, 435, b"\\0" * 88, 88) and through()',
    "multiprocessing": """
import multiprocessing
p = multiprocessing.get_context("fork").Process(target=print); p.start(); p.join(); through()
""",
    "daemon": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import time; time.sleep(30)
    os._exit(0)
through()
""",
    "shell": 'subprocess.run(["/bin/sh", "-c", "true"], check=True); through()',
    "system": 'os.system("true") == 0 and through()',
    "spawn": 'os.posix_spawn("/bin/true", ["true"], {}); through()',
    "exec": 'os.execv("/bin/echo", ["echo", "BREACHED"])',
    "exec_python": 'os.execv(sys.executable or "/usr/bin/python3", ["python", "-c", "print(\'BREACHED\')"])',
    "exec_by_loader": 'os.execv("/lib64/ld-linux-x86-64.so.2", ["ld", "/bin/echo", "BREACHED"])',
    "exec_memfd": """
fd = os.memfd_create("x", 0)
os.write(fd, open("/bin/echo", "rb").read()); os.execve(fd, ["echo", "BREACHED"], {})
""",
    "exec_stdin": """
import errno
os.write(0, b"not a program")
try: os.execve(0, ["x"], {})
except OSError as problem: problem.errno == errno.EPERM or through()
""",
    # privileges, limits, namespaces
    "user_namespace": "libc.unshare(0x10000000) == 0 and through()",
    "mount_namespace": "libc.unshare(0x00020000) == 0 and through()",
    "clone_namespace": "call(56, 220, 0x10000000 | 17, 0, 0, 0, 0) and through()",
    "setns": "call(308, 268, 0, 0) and through()",
    "mount": 'libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 and through()',
    "chroot": 'os.chroot("/"); through()',
    "setuid": "os.setuid(0); through()",
    "setuid_other": "os.setuid(65533); through()",
    "setgroups": "os.setgroups([0]); through()",
    "uid_0": "os.getuid() == 0 and through()",
    "capset": 'call(126, 91, b"\\x22\\x05\\x08\\x20\\0\\0\\0\\0", b"\\xff" * 24) and through()',
    "raise_cpu_limit": "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1)); through()",
    "raise_memory_limit": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); through()",
    "raise_file_limit": "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1)); through()",
    "raise_process_limit": "resource.setrlimit(resource.RLIMIT_NPROC, (-1, -1)); through()",
    "outlive_the_parent": "libc.prctl(1, 0, 0, 0, 0) == 0 and through()",
    "become_dumpable": "libc.prctl(4, 1, 0, 0, 0) == 0 and through()",
    "new_session": "os.setsid(); through()",
    "personality": "call(135, 92, 0x0040000) and through()",
    "hostname": 'socket.sethostname("x"); through()',
    # rarely used system calls that were ways out before
    "io_uring": 'call(425, 425, 8, b"\\0" * 120) and through()',
    "bpf": 'call(321, 280, 0, b"\\0" * 64, 64) and through()',
    "perf": 'call(298, 241, b"\\0" * 128, 0, -1, -1, 0) and through()',
    "userfaultfd": "call(323, 282, 1) and through()",
    "keyctl": "call(250, 219, 0, -3, 0) and through()",
    "add_key": 'call(248, 217, b"user", b"x", b"x", 1, -3) and through()',
    "memfd": 'call(319, 279, b"x", 0) and through()',
    "memfd_secret": "call(447, 447, 0) and through()",
    "seccomp": "call(317, 277, 3, 0, 0) and through()",
    "landlock": "call(444, 444, 0, 0, 1) and through()",
    "modify_ldt": "os.uname().machine == 'x86_64' and call(154, 0, 0, 0, 0) and through()",
    "swapoff": 'call(168, 225, b"/x") and through()',
    "syslog": "call(103, 116, 10, 0, 0) and through()",
    "x32_call": "os.uname().machine == 'x86_64' and call(0x40000000 + 41, 0, 2, 1, 0) and through()",
    "shm": "call(29, 194, 0, 4096, 0o1600) and through()",
    "msgget": "call(68, 186, 0, 0o1600) and through()",
    "semget": "call(64, 190, 0, 1, 0o1600) and through()",
    "mq_open": 'call(240, 180, b"x", 0o102, 0o600, 0) and through()',
    "tiocsti": """
import fcntl, errno
try: fcntl.ioctl(0, 0x5412, b"x"); through()
except OSError as problem: problem.errno in (errno.EPERM, errno.ENOTTY) or through()
""",
    "inotify": "call(294, 26, 0) and through()",
    "fanotify": "call(300, 262, 0, 0) and through()",
    # what the process inherits, and what lies in its memory
    "descriptors": """
for fd in range(3, 4096):
    try: os.fstat(fd)
    except OSError: continue
    through()
""",
    "write_everywhere": """
for fd in range(2, 1024):
    try: os.write(fd, b"{\\"code\\": 0}") and fd > 2 and through()
    except OSError: pass
""",
    "frames": """
frame = sys._getframe()
while frame:
    for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
        if world["prefix"] + ":" in repr(value).replace(world["prefix"] + "'", ""): through()
    frame = frame.f_back
""",
    "collector": """
start = world["prefix"] + ":"
for o in gc.get_objects():
    for value in o if isinstance(o, (list, tuple)) else o.values() if type(o) is dict else ():
        if isinstance(value, str) and value.startswith(start) and len(value) > len(start): through()
""",
    # Every mapped page around the heap, the libraries and the stack. A pipe answers EFAULT where a read would crash.
    "memory": """
import re
page, found = 4096, re.compile(world["prefix"].encode() + rb":[0-9a-f]{32}")
ours, theirs = os.pipe()
def peek(address):
    if libc.write(theirs, ctypes.c_void_p(address), ctypes.c_size_t(page)) != page: return b""
    return os.read(ours, page)
spot = ctypes.c_int()
near = {id(object()), id([0] * 9999), id(sys), ctypes.addressof(spot), ctypes.cast(libc.write, ctypes.c_void_p).value}
for base in near:
    start = max(page, (base - (32 << 20)) // page * page)
    for address in range(start, start + (64 << 20), page):
        if found.search(peek(address)):
            through()
            os._exit(0)
""",
}

_OUTSIDE = (
    "tcp tcp_listen udp abstract_unix abstract_unix_from_a_pair unix_path read_passwd read_expected_file "
    "list_its_directory list_root list_tmp read_the_graders_source import_the_grader write_a_file write_cwd mkdir "
    "symlink chmod utime mkfifo environment environment_of_libc proc_environ proc_mem proc_list sysfs stop_victim "
    "kill_by_pidfd ptrace setpriority_of_others affinity_of_others limits_of_others fork multiprocessing shell "
    "system spawn exec exec_python exec_memfd outlive_the_parent become_dumpable memfd seccomp shm msgget semget "
    "overwrite truncate rename unlink kill_victim inotify"
)
OUTSIDE = _OUTSIDE.split()
# Programs that search for the secret run in a fork of a process that holds it: there they must find it.
IN_A_FORK = ["collector", "memory"]


def source(name: str) -> str:
    return PRELUDE + "\n" + ATTACKS[name]
