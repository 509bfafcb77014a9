// Command load puts a load on a store by etcd's own Go client, as etcd's benchmark tool does: clients that send their
// next request when the last is answered, on fewer connections. It prints one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
)

var (
	endpoints = flag.String("endpoints", "", "addresses of the members, separated by commas")
	what      = flag.String("what", "put", "put, range or range-serializable")
	clients   = flag.Int("clients", 1, "requests at a time")
	conns     = flag.Int("conns", 1, "connections")
	seconds   = flag.Float64("seconds", 10, "how long")
	space     = flag.Int("key-space", 10000, "different keys")
	size      = flag.Int("value-size", 1024, "bytes of a value")
)

// outcome is what is printed; times of operations are in milliseconds.
type outcome struct {
	Done    int     `json:"done"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
	P999    float64 `json:"p999"`
	// CPU of this process from the load's begin to its end.
	CPUSeconds float64 `json:"cpu_seconds"`
}

func main() {
	flag.Parse()
	connected := make([]*clientv3.Client, *conns)
	for i := range connected {
		config := clientv3.Config{Endpoints: strings.Split(*endpoints, ","), DialTimeout: 5 * time.Second}
		client, err := clientv3.New(config)
		must(err)
		connected[i] = client
		// Each connection is made before the clock starts.
		_, err = client.Get(context.Background(), key(0))
		must(err)
	}
	if *what != "put" {
		prepare(connected[0])
	}
	begun, before := time.Now(), cpuSeconds()
	end := begun.Add(time.Duration(*seconds * float64(time.Second)))
	times := make([][]time.Duration, *clients)
	var all sync.WaitGroup
	for i := range times {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			times[i] = work(connected[i%len(connected)], rand.New(rand.NewSource(int64(i))), end)
		}(i)
	}
	all.Wait()
	took, cpu := time.Since(begun), cpuSeconds()-before
	show(times, took, cpu)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func key(number int) string {
	return fmt.Sprintf("/registry/pods/default/%09d", number)
}

// prepare makes the keys that are read.
func prepare(client *clientv3.Client) {
	value := strings.Repeat("x", *size)
	for number := 0; number < *space; number += 100 {
		var puts []clientv3.Op
		for k := number; k < number+100 && k < *space; k++ {
			puts = append(puts, clientv3.OpPut(key(k), value))
		}
		_, err := client.Txn(context.Background()).Then(puts...).Commit()
		must(err)
	}
}

// work sends requests until the end; returns how long each took.
func work(client *clientv3.Client, random *rand.Rand, end time.Time) []time.Duration {
	bytes := make([]byte, *size)
	random.Read(bytes)
	value := string(bytes)
	var times []time.Duration
	for begun := time.Now(); begun.Before(end); {
		var err error
		switch k := key(random.Intn(*space)); *what {
		case "put":
			_, err = client.Put(context.Background(), k, value)
		case "range":
			_, err = client.Get(context.Background(), k)
		case "range-serializable":
			_, err = client.Get(context.Background(), k, clientv3.WithSerializable())
		default:
			err = fmt.Errorf("what is %q?", *what)
		}
		// One that fails makes the figures mean nothing.
		must(err)
		now := time.Now()
		times = append(times, now.Sub(begun))
		begun = now
	}
	return times
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(used.Utime) + seconds(used.Stime)
}

func show(times [][]time.Duration, took time.Duration, cpu float64) {
	var all []time.Duration
	for _, some := range times {
		all = append(all, some...)
	}
	if len(all) == 0 {
		must(fmt.Errorf("nothing was done in %v", took))
	}
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	at := func(part float64) float64 { return all[int(part*float64(len(all)-1))].Seconds() * 1e3 }
	result := outcome{len(all), took.Seconds(), at(0.5), at(0.99), at(0.999), cpu}
	must(json.NewEncoder(os.Stdout).Encode(result))
}
