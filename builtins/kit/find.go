package kit

import "github.com/seed1de3961f/runbook/plugins/sdk/problem"

// Find returns the function of a family, by both names. A caller that names one that does not exist did not go through the
// vocabulary it was given.
func Find(families []Family, family, function string) (Family, Function, error) {
	var names []string
	for _, f := range families {
		for _, fn := range f.Functions {
			names = append(names, f.Name+"."+fn.Name)
		}
		if f.Name != family {
			continue
		}
		if fn, ok := f.Lookup(function); ok {
			return f, fn, nil
		}
	}
	return Family{}, Function{}, problem.New(problem.UnknownName, "there is no function %s.%s%s", family, function, problem.DidYouMean(family+"."+function, names))
}
