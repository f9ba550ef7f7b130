cat >/tmp/t.py <<'P'
import asyncio, multiprocessing as mp, os, sqlite3, subprocess, sys, threading
def square(n): return n * n
async def main():
    p = await asyncio.create_subprocess_exec("echo", "child", stdout=subprocess.PIPE)
    out, _ = await p.communicate()
    print(out, await asyncio.gather(*(asyncio.sleep(0.001 * i, i) for i in range(5))))
if __name__ == "__main__":
    print(subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True))
    total, lock = [0], threading.Lock()
    def add():
        for _ in range(10000):
            with lock: total[0] += 1
    ts = [threading.Thread(target=add) for _ in range(4)]
    [t.start() for t in ts]; [t.join() for t in ts]; print(total)
    with mp.Pool(2) as pool: print(sum(pool.map(square, range(1000))))
    asyncio.run(main())
    db = sqlite3.connect("/root/t.db"); db.execute("create table t(a, b)")
    db.executemany("insert into t values (?, ?)", [(i, str(i)) for i in range(1000)]); db.commit()
    print(db.execute("select sum(a), count(b) from t").fetchall(), os.path.getsize("/root/t.db") > 0)
    try: os.open("/none", os.O_RDONLY)
    except OSError as e: print(e)
    sys.exit(7)
P
exec python3 /tmp/t.py
