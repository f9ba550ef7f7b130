export GOCACHE=/tmp/gocache GOPATH=/tmp/go GO111MODULE=off
cd /tmp && cat >t.go <<'G'
package main

import ("fmt"; "os"; "os/exec"; "sync"; "time")

func main() {
	var wg sync.WaitGroup; var mu sync.Mutex; sum := 0
	for i := 0; i < 100; i++ { wg.Add(1); go func(n int) { defer wg.Done(); time.Sleep(time.Millisecond); mu.Lock(); sum += n; mu.Unlock() }(i) }
	wg.Wait(); fmt.Println(sum)
	out, err := exec.Command("echo", "child").Output(); fmt.Printf("%q %v\n", out, err)
	c := make(chan int); go func() { for i := 0; i < 10000; i++ { c <- i }; close(c) }(); n := 0; for range c { n++ }; fmt.Println(n)
	os.Exit(7)
}
G
go build -o t t.go && exec ./t
