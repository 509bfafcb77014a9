// The way to a member's peer port, which tests cut.

package integration

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// link stands before a member's peer port. A peer's connection begins with a greeting that names
// the member who dials (store/server/src/peers/frame.rs), so that connections of one peer can be
// cut: nothing comes through any more, and nobody is told. Under TLS it only passes bytes on.
type link struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cuts  map[uint64]chan struct{}
	conns map[net.Conn]uint64
	wg    sync.WaitGroup
}

const (
	// Length, magic, purpose and cluster come before the sender.
	senderAt      = 4 + 5 + 1 + 8
	greetingBytes = senderAt + 8
)

func newLink(addr, to string) (*link, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &link{listener: listener, to: to, cuts: map[uint64]chan struct{}{}, conns: map[net.Conn]uint64{}}
	l.wg.Add(1)
	go l.serve()
	return l, nil
}

func (l *link) addr() string { return l.listener.Addr().String() }

func (l *link) serve() {
	defer l.wg.Done()
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			l.pass(conn)
		}()
	}
}

// pass hands a connection on, unless and until its sender is cut off.
func (l *link) pass(from net.Conn) {
	defer l.forget(from)
	l.remember(from, 0)
	start := make([]byte, greetingBytes)
	if _, err := io.ReadFull(from, start); err != nil {
		return
	}
	sender := uint64(0)
	if string(start[4:8]) == "KLSN" {
		sender = binary.BigEndian.Uint64(start[senderAt:])
	}
	l.remember(from, sender)
	if mended := l.isCut(sender); mended != nil {
		<-mended
		return
	}
	to, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer l.forget(to)
	l.remember(to, 0)
	if _, err := to.Write(start); err != nil {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		l.copy(from, to, sender)
		from.Close()
	}()
	l.copy(to, from, sender)
	to.Close()
	<-back
}

// copy moves bytes; once the sender is cut off it holds what it has until that is mended, and ends.
func (l *link) copy(to io.Writer, from io.Reader, sender uint64) {
	buffer := make([]byte, 32*1024)
	for {
		n, err := from.Read(buffer)
		if mended := l.isCut(sender); mended != nil {
			<-mended
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *link) remember(conn net.Conn, sender uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = sender
}

func (l *link) forget(conn net.Conn) {
	conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
}

func (l *link) isCut(sender uint64) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts[sender]
}

func (l *link) cut(sender uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cuts[sender] == nil {
		l.cuts[sender] = make(chan struct{})
	}
}

// mend lets a peer dial again; what it had open meanwhile ends.
func (l *link) mend(sender uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mended := l.cuts[sender]; mended != nil {
		close(mended)
		delete(l.cuts, sender)
	}
	for conn, of := range l.conns {
		if of == sender {
			conn.Close()
		}
	}
}

func (l *link) close() {
	l.listener.Close()
	l.mu.Lock()
	for sender, mended := range l.cuts {
		close(mended)
		delete(l.cuts, sender)
	}
	for conn := range l.conns {
		conn.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
