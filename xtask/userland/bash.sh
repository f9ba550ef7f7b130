set -u
declare -A map=([one]=1 [two]=2); for k in one two; do echo "$k=${map[$k]}"; done
fact() { local n=$1; ((n < 2)) && echo 1 || echo $((n * $(fact $((n - 1))))); }
fact 8
cat <<EOF | tr a-z A-Z | rev
here document of $(whoami)
EOF
diff <(printf '1\n2\n') <(printf '1\n3\n'); echo "diff $?"
trap 'echo got USR1' USR1; kill -USR1 $$; trap 'echo at exit' EXIT
for i in 1 2 3; do (exit $i) & wait $!; echo "child $?"; done
sleep 100 & kill $!; wait $!; echo "killed $?"
set -o pipefail; false | true; echo "pipe $?"; set +o pipefail
cd /tmp && mkdir -p a/b && touch a/b/{x,y,z} && echo a/b/*; pwd; cd a/b && cd - >/dev/null && pwd
exec 5>file; echo five >&5; exec 5>&-; read -r line <file; echo "$line"; ulimit -n; umask; hostname
exit 7
