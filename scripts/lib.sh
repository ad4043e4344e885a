# Shared by the scripts; sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }

# The Java that Pulsar's and Maven's own scripts would take too; or another tool beside it.
java_command() { # [tool]
  if [ -n "${JAVA_HOME:-}" ]; then echo "$JAVA_HOME/bin/${1:-java}"; else echo "${1:-java}"; fi
}

# Checks everything that has to be installed, and tells all that is missing at once. With `jdk`, also what compiles the tests' Java programs;
# with `python`, also what the stand-in for AWS needs.
prerequisites() { # [jdk] [python]
  local missing=()
  local toolchain
  toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
  if ! command -v cargo >/dev/null; then
    missing+=("Rust by rustup (rustup.rs), then: rustup toolchain install $toolchain --profile minimal --component clippy,rustfmt")
  elif ! (cd "$root" && cargo --version >/dev/null 2>&1); then
    missing+=("Rust $toolchain: rustup toolchain install $toolchain --profile minimal --component clippy,rustfmt")
  fi
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
  if [ ${#missing[@]} -gt 0 ]; then
    say "Missing:"
    printf '  - %s\n' "${missing[@]}" >&2
    exit 64
  fi
}

# sha256sum under either of its names.
sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}
