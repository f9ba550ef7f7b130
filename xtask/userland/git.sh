export GIT_AUTHOR_DATE=@0+0000 GIT_COMMITTER_DATE=@0+0000
git config --global user.email a@b.example; git config --global user.name A; git config --global init.defaultBranch trunk
cd /root && git init -q r && cd r && for i in $(seq 50); do echo $i >f$i; done && git add . && git commit -qm first && echo x >>f1 && git commit -qam second
git log --format='%H %s'; git status --short | wc -l; cd .. && git clone -q r c 2>&1; cd c && git log --oneline | wc -l; cat f1; git fsck 2>&1 | tail -1; git gc -q; git rev-parse HEAD
exit 7
