package demo

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	queueSize = 100_000              // jobs; beyond that they are dropped and counted, so that a stuck worker stays small
	jobTime   = 1 * time.Millisecond // what one job takes
)

// queueWorker takes jobs from a queue in its memory and books each in two tables.
type queueWorker struct {
	queue chan struct{}

	// Each table has its lock, and the rule is: ledger first, then journal.
	ledger, journal sync.Mutex
	booked, noted   int

	done, dropped prometheus.Counter
	stickOnce     sync.Once
	ready         chan struct{} // closed when the first job is done
}

// consume is the one goroutine that does the jobs.
func (w *queueWorker) consume() {
	for first := true; ; first = false {
		<-w.queue
		w.book()
		w.done.Inc()
		if first {
			close(w.ready)
		}
	}
}

// book keeps the rule: ledger, then journal.
func (w *queueWorker) book() {
	w.ledger.Lock()
	defer w.ledger.Unlock()
	w.booked++
	time.Sleep(jobTime)
	w.journal.Lock()
	defer w.journal.Unlock()
	w.noted++
}

// compact is the bug. It takes the two locks the other way round: journal, then ledger. That goes well as long as no job
// is being done between its two lines, and once one is, each of the two goroutines waits for the lock that the other
// holds, for ever. From then on jobs only arrive. A true bug of this kind shows once in a month; the loop waits for
// the unlucky moment, so that it shows at once. Nothing in this process can end it: only a restart can.
func (w *queueWorker) compact() {
	w.journal.Lock()
	defer w.journal.Unlock()
	for w.ledger.TryLock() { // nobody is between the two locks yet
		w.ledger.Unlock()
		runtime.Gosched()
	}
	w.ledger.Lock()
	defer w.ledger.Unlock()
	w.booked, w.noted = 0, 0
}

// produce enqueues jobs at a steady rate; after a pause of the whole process it catches up.
func (w *queueWorker) produce(perSecond float64) {
	start := time.Now()
	sent := 0
	for range time.Tick(5 * time.Millisecond) {
		for due := int(time.Since(start).Seconds() * perSecond); sent < due; sent++ {
			select {
			case w.queue <- struct{}{}:
			default:
				w.dropped.Inc()
			}
		}
	}
}

func (w *queueWorker) stick() { w.stickOnce.Do(func() { go w.compact() }) }

func (w *queueWorker) handler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	// Like many a health check this one says that the process is there and has begun to work, not that it goes on: a stuck
	// worker stays healthy here, which is why somebody wrote a runbook.
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		select {
		case <-w.ready:
		default:
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(rw).Encode(Process{PID: os.Getpid()}) // the client has gone away; nobody is left to tell
	})
	mux.HandleFunc("POST /stick", func(rw http.ResponseWriter, _ *http.Request) {
		w.stick()
		rw.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// work is the command that is one worker process. It prints one line, a Process, when it can be reached.
func work(args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("work", flag.ContinueOnError)
	dir := f.String("dir", "", "directory of the service")
	name := f.String("name", "", "name of the worker; the label instance of its metrics")
	listen := f.String("listen", "127.0.0.1:0", "address to serve /metrics, /healthz and /stick on")
	rate := f.Float64("rate", 200, "jobs that arrive per second")
	stickAfter := f.Duration("stick-after", 0, "get stuck after this time; 0 means when asked to")
	lifeline := f.Bool("lifeline", false, "end when standard input ends")
	if _, err := parse(f, args, stderr); err != nil {
		return err
	}
	if !validName(*name) || *dir == "" || *rate <= 0 {
		return usagef("--dir and --name are needed, a name is of letters, digits, '-' and '_', and --rate is above 0")
	}
	starts, err := countStart(*dir, *name)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}

	reg := prometheus.NewRegistry()
	own := prometheus.WrapRegistererWith(prometheus.Labels{"instance": *name}, reg)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		own.MustRegister(c)
		return c
	}
	w := &queueWorker{
		queue:   make(chan struct{}, queueSize),
		done:    counter("jobs_done_total", "Jobs that were done."),
		dropped: counter("jobs_dropped_total", "Jobs that found the queue full."),
		ready:   make(chan struct{}),
	}
	counter("demo_worker_starts_total", "Times that this worker was started since its directory was made.").Add(float64(starts))
	own.MustRegister(
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), // process_start_time_seconds and the like
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "queue_depth", Help: "Jobs that wait."}, func() float64 { return float64(len(w.queue)) }),
	)

	go w.consume()
	go w.produce(*rate)
	if *stickAfter > 0 {
		time.AfterFunc(*stickAfter, w.stick)
	}
	ended := make(chan error, 2)
	srv := &http.Server{Handler: w.handler(promhttp.HandlerFor(reg, promhttp.HandlerOpts{})), ReadHeaderTimeout: time.Second}
	go func() { ended <- srv.Serve(l) }()
	if *lifeline {
		go func() {
			_, err := io.Copy(io.Discard, os.Stdin)
			ended <- err
		}()
	}
	if err := replaceFile(pidFile(*dir, *name), []byte(strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return err
	}
	hello, err := json.Marshal(Process{PID: os.Getpid(), URL: "http://" + l.Addr().String()})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "%s\n", hello); err != nil {
		return errors.Join(errors.New("nobody reads where this worker listens"), err)
	}
	return <-ended // SIGTERM is not caught: it ends the process at once, stuck or not
}

// validName says whether a name is safe as a part of a file name.
func validName(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return false
		}
	}
	return s != "" && s[0] != '-'
}
