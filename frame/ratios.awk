# Reads the output of `go test -bench -count N` for benchmarks that report ns/frame, and prints for each size the least
# time of each way and what multiple it is of the first way's. The least, not the mean: whatever else the machine does
# can only add.

/^Benchmark/ {
	name = $1
	sub(/-[0-9]+$/, "", name)
	sub(/^Benchmark/, "", name)
	ns = ""
	allocs = "-"
	for (i = 3; i < NF; i++) {
		if ($(i + 1) == "ns/op") op = $i
		if ($(i + 1) == "ns/frame") ns = $i
		if ($(i + 1) == "allocs/op") allocs = $i
	}
	if (ns == "") next
	if (!(name in least)) {
		order[++count] = name
		least[name] = ns
	}
	if (ns + 0 < least[name] + 0) least[name] = ns
	if (allocs != "-") alloc[name] = sprintf("%.1f", allocs * ns / op) # an operation is many frames
}

/^(cpu|goos|goarch):/ { print }
/^(FAIL|panic:|---)/ { print; failed = 1 }

END {
	if (count == 0 || failed) {
		print "no benchmark came through" > "/dev/stderr"
		exit 1
	}
	for (i = 1; i <= count; i++) {
		name = order[i]
		group = name
		sub(/\/[^\/]*$/, "", group)
		way = substr(name, length(group) + 2)
		if (group != last) {
			printf "\n%-24s %12s %9s %10s\n", group, "ns/frame", "x", "allocs"
			last = group
			floor = least[name]
		}
		printf "  %-22s %12.1f %9.2f %10s\n", way, least[name], least[name] / floor, alloc[name]
	}
}
