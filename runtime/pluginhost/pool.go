package pluginhost

import (
	"context"
	"slices"
	"sync"

	"github.com/seed1de3961f/runbook/plugins/sdk"
	"github.com/seed1de3961f/runbook/plugins/sdk/problem"
	pluginpb "github.com/seed1de3961f/runbook/plugins/sdk/proto"
)

// pool is the processes of one connection. Queries share a process; an action has one to itself, so that killing its group
// harms nothing else. Most runs need one process.
type pool struct {
	host     *Plugins
	conn     Connection
	config   *pluginpb.Dict
	manifest sdk.Manifest

	mu     sync.Mutex
	procs  []*process
	closed bool
}

// take returns a process that is ready, and starts one if there is none to share. What it returns is handed back by put.
func (pl *pool) take(ctx context.Context, alone bool) (*process, error) {
	p, err := pl.reserve(alone)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.ready:
	case <-ctx.Done():
		pl.put(p)
		return nil, problem.Wrap(problem.PluginTimeout, ctx.Err(), "plugin %s: it was not ready in time", pl.conn.Plugin)
	}
	if p.startErr != nil {
		pl.put(p)
		return nil, p.startErr
	}
	return p, nil
}

func (pl *pool) reserve(alone bool) (*process, error) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.closed {
		return nil, problem.New(problem.Internal, "the plugin host is closed")
	}
	pl.procs = slices.DeleteFunc(pl.procs, func(p *process) bool { return p.ended() && p.users == 0 })
	for _, p := range pl.procs {
		if !p.alone && !p.retired && !p.ended() && (!alone || p.users == 0) {
			p.users++
			p.alone = alone
			return p, nil
		}
	}
	p := newProcess(pl)
	p.users, p.alone = 1, alone
	pl.procs = append(pl.procs, p)
	go p.start()
	return p, nil
}

// prestart starts a process that nobody uses yet, unless there is one.
func (pl *pool) prestart() {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.closed || len(pl.procs) > 0 {
		return
	}
	p := newProcess(pl)
	pl.procs = append(pl.procs, p)
	go p.start()
}

// put hands a process back.
func (pl *pool) put(p *process) {
	pl.mu.Lock()
	p.users--
	p.alone = false
	last := p.users == 0 && p.retired
	pl.mu.Unlock()
	if last {
		go p.stop() // gently, so that it can end the commands that it runs
	}
}

// retire keeps a process from further use, because it did not answer. It is ended once nobody uses it.
func (pl *pool) retire(p *process) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	p.retired = true
}

// close ends all processes, whatever they do.
func (pl *pool) close() {
	pl.mu.Lock()
	pl.closed = true
	procs := pl.procs
	pl.procs = nil
	idle := make([]bool, len(procs))
	for i, p := range procs {
		idle[i] = p.users == 0
	}
	pl.mu.Unlock()
	var wg sync.WaitGroup
	for i, p := range procs {
		if _, bundled := pl.host.bundled[pl.conn.Plugin]; bundled && idle[i] {
			wg.Go(p.end) // between two calls they have nothing to tidy up
		} else {
			wg.Go(p.stop)
		}
	}
	wg.Wait()
}
