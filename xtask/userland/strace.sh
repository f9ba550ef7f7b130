exec 2>&1; cd /tmp
plain() { sed -E 's/^\[pid +[0-9]+\] |^[0-9]+ +//; s/si_[pu]id=[0-9]+/ID/g; s/si_.time=[0-9]+( \/\*[^*]*\*\/)?/T/g; s/0x[0-9a-f]+ .*/ENV/; s/ +/ /g; /resumed|unfinished/d' "$@"; }
strace -e trace=write -o log sh -c 'echo one; echo two'; cat log
strace -f -e trace=exit_group -o log sh -c '(exit 3); (exit 4)'; plain log | sort
strace -f --seccomp-bpf -e trace=execve -e signal=none -o log sh -c '/bin/true; /bin/echo three | cat'; plain log | grep true
touch f; strace -o log -e trace=unlinkat -e inject=unlinkat:error=EBUSY rm f; ls f
strace -o log -e trace=getppid -e inject=getppid:retval=4711 python3 -c 'import os; print(os.getppid())'
strace -o log -e trace=none -e signal=USR1 sh -c 'trap "echo caught" USR1; kill -USR1 $$'; plain log
mkfifo told; sleep 1000 & sleeper=$!
strace -e trace=none -p $sleeper 2>told & exec 3<told; read -r -u 3 line; echo "${line//[0-9]/}"
kill $sleeper; plain <&3
python3 -c '
import ctypes, os, signal
libc = ctypes.CDLL(None)
pid = os.fork()
if pid == 0:
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(9)
print(os.WIFSTOPPED(os.waitpid(pid, 0)[1]))
steps = 0
while steps < 500:
    libc.ptrace(9, pid, 0, 0)
    if os.WSTOPSIG(os.waitpid(pid, 0)[1]) != signal.SIGTRAP: break
    steps += 1
print(steps)
libc.ptrace(7, pid, 0, 0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))'
exit 7
