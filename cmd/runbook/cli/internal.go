package cli

// serveInternal runs the commands that only this program itself starts, as a child. They come before everything else: a
// worker has to be ready within milliseconds, and none of them may read flags or the environment.
func serveInternal(args []string, stdio Stdio) (code int, ok bool) {
	return 0, false
}
