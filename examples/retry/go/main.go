// A client whose retries get through the restart of a node's network agent.
//
//	go run main.go URL [SECONDS TO CONNECT] [ATTEMPTS]
package main

import (
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	connect, attempts := 2.0, 20
	if len(os.Args) > 2 {
		connect, _ = strconv.ParseFloat(os.Args[2], 64)
	}
	if len(os.Args) > 3 {
		attempts, _ = strconv.Atoi(os.Args[3])
	}
	// The default dialer waits 30 s. No LocalAddr: each dial then has a new source port.
	dialer := &net.Dialer{Timeout: time.Duration(connect * float64(time.Second))}
	transport := &http.Transport{DialContext: dialer.DialContext, IdleConnTimeout: 30 * time.Second}
	client := &http.Client{Transport: transport}
	begin := time.Now()
	for attempt := 1; ; attempt++ {
		response, err := client.Get(os.Args[1])
		if err == nil {
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
			fmt.Printf("%d after %.1f s, attempt %d\n", response.StatusCode, time.Since(begin).Seconds(), attempt)
			return
		}
		if attempt >= attempts {
			fmt.Printf("failed after %.1f s, attempt %d: %v\n", time.Since(begin).Seconds(), attempt, err)
			os.Exit(1)
		}
		transport.CloseIdleConnections()
		time.Sleep(time.Duration(rand.Int63n(int64(min(100*time.Millisecond<<min(attempt, 5), 2*time.Second)))))
	}
}
