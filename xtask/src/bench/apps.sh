# What people run, timed from inside: prints NAME MICROSECONDS, a line a run. In a folder of the root file system.
set -e
mkdir /root/bench
cd /root/bench
timed() {
    name=$1; shift
    start=${EPOCHREALTIME/./}
    "$@" > /dev/null
    echo "$name $((${EPOCHREALTIME/./} - start))"
}

for i in {1..1000}; do
    printf 'int f%d(int a, int b)\n{\n    int c = a * %d + (b ^ %d);\n    return c > 7 ? c - b : f%d(c, a);\n}\n' "$i" "$i" "$i" $((i > 1 ? i - 1 : 1))
done > big.c
timed gcc gcc -O1 -c big.c -o big.o

for _ in 1 2 3; do timed python3 python3 -c pass; done

loop() { for _ in {1..300}; do /bin/true; done; }
timed loop loop

git init -q repo
cd repo
for dir in {1..100}; do
    mkdir "d$dir"
    for file in {1..50}; do echo "$dir $file" > "d$dir/f$file"; done
done
git add .
git -c user.name=n -c user.email=e commit -q -m all
for _ in 1 2 3; do timed git git status --porcelain; done
