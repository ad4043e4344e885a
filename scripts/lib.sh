# Shared by the scripts; sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

# The Java that Pulsar's and Maven's own scripts would take too; or another tool beside it.
java_command() { # [tool]
  if [ -n "${JAVA_HOME:-}" ]; then echo "$JAVA_HOME/bin/${1:-java}"; else echo "${1:-java}"; fi
}

# What is not installed, each with the way to install it.
missing=()

# Adds Rust to what is missing, unless it is there.
need_rust() {
  local toolchain
  toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
  if ! command -v cargo >/dev/null; then
    missing+=("Rust by rustup (rustup.rs), then: rustup toolchain install $toolchain --profile minimal --component clippy,rustfmt")
  elif ! (cd "$root" && cargo --version >/dev/null 2>&1); then
    missing+=("Rust $toolchain: rustup toolchain install $toolchain --profile minimal --component clippy,rustfmt")
  fi
}

# Ends the script if anything is missing, and tells all of it at once.
end_if_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  say "Missing:"
  printf '  - %s\n' "${missing[@]}" >&2
  exit 64
}

# Checks everything that has to be installed. With `jdk`, also what compiles the tests' Java programs;
# with `python`, also what the stand-in for AWS needs.
prerequisites() { # [jdk] [python]
  need_rust
  command -v cc >/dev/null || missing+=("a C compiler (Debian, Ubuntu: apt-get install build-essential; macOS: xcode-select --install)")
  local java=""
  if command -v "$(java_command)" >/dev/null; then
    java=$("$(java_command)" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  fi
  if [ -z "$java" ] || [ "$java" -lt 17 ]; then
    missing+=("Java 17 or newer${java:+, not $java} (Debian, Ubuntu: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17)")
  fi
  if [[ " $* " == *" jdk "* ]] && ! command -v "$(java_command javac)" >/dev/null; then
    missing+=("a JDK with javac and jar, not only a JRE (Debian, Ubuntu: apt-get install openjdk-17-jdk-headless; macOS: brew install openjdk@17)")
  fi
  command -v mvn >/dev/null || missing+=("Maven (Debian, Ubuntu: apt-get install maven; macOS: brew install maven)")
  if [[ " $* " == *" python "* ]] && ! python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    missing+=("Python 3.10 or newer with venv (Debian, Ubuntu: apt-get install python3-venv; macOS: brew install python)")
  fi
  end_if_missing
}

# sha256sum under either of its names.
sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}
