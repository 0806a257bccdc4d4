package loop

var children = map[string]func() error{}
