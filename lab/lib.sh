# shellcheck shell=bash
# Shared by the shell scripts of the lab. Source it; sets LAB, TOP and BUILD.

LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(dirname "$LAB")
BUILD=$TOP/build
export LAB TOP BUILD

# What was given to our make (T=, BOOT=, -s) is not meant for the kernel's make.
unset MAKEFLAGS MAKEOVERRIDES MFLAGS

# Kernel objects are the same bytes whichever tree they are compiled in: paths
# below build/ are made relative, so that the patched and the unpatched kernel
# share what they have in common.
if command -v ccache >/dev/null; then
	CC="ccache gcc"
	export CCACHE_BASEDIR=$BUILD CCACHE_NOHASHDIR=1
	export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-time_macros,include_file_mtime,include_file_ctime}
else
	CC=gcc
fi
# Two builds of one source are one kernel: no date, no user, no host name in it, and no "+"
# behind the version of a git tree.
export CC LOCALVERSION='' KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab

JOBS=${JOBS:-$(nproc)}
export JOBS

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die WHAT EXPECTED SEEN NEXT: every failure says all four.
die() {
	{
		printf '%s: %s\n' "${0##*/}" "$1"
		printf '  expected: %s\n  seen:     %s\n  next:     %s\n' "$2" "$3" "$4"
	} >&2
	exit 1
}

# count_steps LOG: how many files a kernel's build has made so far.
count_steps() { grep -cE '^  (CC|LD|AS|AR|HOSTCC|GEN) ' "$1" 2>/dev/null || true; }

# watch_log PID LOG WHAT TOTAL: a line of progress while PID writes LOG, until TOTAL steps.
# Without TOTAL it says how far it is, and not how much is left.
watch_log() {
	local pid=$1 log=$2 what=$3 total=$4 start=$SECONDS last=-60 n t line
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		# A terminal gets one line that changes, a log file one line in half a minute.
		[ -t 2 ] || [ $((SECONDS - last)) -ge 30 ] || continue
		[ $((SECONDS - last)) -ge 3 ] || continue
		last=$SECONDS t=$((SECONDS - start)) n=$(count_steps "$log")
		line="$what: ${n:=0} steps, $t s"
		if [ "${total:-0}" -gt "$n" ]; then
			line="$what: $n of about $total steps, $t s"
			# The first steps are not like the others.
			[ "$n" -lt 50 ] || line+=", $(time_left $(((total - n) * t / n))) left"
		fi
		if [ -t 2 ]; then
			printf '\r%-70s' "$line" >&2
		else
			printf '%s\n' "$line" >&2
		fi
	done
	[ -t 2 ] && printf '\r%70s\r' '' >&2
	return 0
}

# time_left SECONDS: for people
time_left() {
	if [ "$1" -lt 90 ]; then echo "$1 s"; else echo "$((($1 + 30) / 60)) min"; fi
}
