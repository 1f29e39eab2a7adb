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
# Two builds of one source are one kernel: no date, no user, no host name in it.
export CC KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab

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

# watch_log PID LOG WHAT TOTALFILE: a line of progress while PID writes LOG.
# TOTALFILE keeps the number of steps of the last full build, for the "of N".
watch_log() {
	local pid=$1 log=$2 what=$3 total=$4 start=$SECONDS last=-60 of='' n
	[ -s "$total" ] && of=" of about $(cat "$total")"
	while kill -0 "$pid" 2>/dev/null; do
		sleep 1
		# A terminal gets one line that changes, a log file one line in half a minute.
		[ -t 2 ] || [ $((SECONDS - last)) -ge 30 ] || continue
		[ $((SECONDS - last)) -ge 3 ] || continue
		last=$SECONDS
		n=$(grep -cE '^  (CC|LD|AS|AR|HOSTCC|GEN) ' "$log" 2>/dev/null || true)
		if [ -t 2 ]; then
			printf '\r%s: %s steps%s, %d s   ' "$what" "${n:-0}" "$of" $((SECONDS - start)) >&2
		else
			printf '%s: %s steps%s, %d s\n' "$what" "${n:-0}" "$of" $((SECONDS - start)) >&2
		fi
	done
	[ -t 2 ] && printf '\r%70s\r' '' >&2
	return 0
}
