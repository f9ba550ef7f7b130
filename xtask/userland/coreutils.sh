mkdir -p /root/tree && cd /root/tree
for d in $(seq 100); do mkdir "$d"; (cd "$d" && for f in $(seq 100); do echo "$d/$f" >"$f"; done); done
find . -type f | wc -l
find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum
tar cf /tmp/t.tar --sort=name --mtime=@0 . && mkdir /tmp/x && tar xf /tmp/t.tar -C /tmp/x
(cd /tmp/x && find . -type f | sort | xargs cat | sha256sum); diff -r . /tmp/x && echo same
find . -name 7 | sort | head -3; cp -a 1 copy && ls copy | wc -l; mv copy moved; rm -r moved; ls -d moved 2>&1
ln -s 1/1 link; readlink link; cat link; stat -c '%a %s %F' link 1/1; du -a 1 | wc -l; chmod 600 1/1; stat -c %a 1/1
seq 100000 | sort -R | sort -n | tail -1; dd if=/dev/zero bs=1M count=8 2>/dev/null | md5sum; rm -rf /root/tree; ls /root/tree 2>&1
exit 7
