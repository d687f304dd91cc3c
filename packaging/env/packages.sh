# shellcheck shell=sh disable=SC2154
# Sourced by install-run.sh and install-build.sh: which distribution this is, which of the wanted packages are missing, and how they
# are installed. What is there is left alone, and a dry run changes nothing. The script sets $program (its name) and
# $needs (what it is there to install), and defines usage().
#
# On Debian and Ubuntu a package of nginx or Redis starts its service when it is installed, on port 80 or 6379; on the RHEL family it
# does not. Nothing here needs those services, and a port that opens by surprise is bad manners, so both families end alike: installed,
# neither started nor enabled. While they are installed the units of new services are masked, in /run only, so that not even a power cut
# leaves a mask behind; afterwards they are disabled, and `systemctl enable --now nginx` starts one as ever. A service that was there
# before is not touched. A policy-rc.d would do it too, but would hold back the services of every other package with them.

family=
missing=
hint=
refreshed=
dry_run=no

say() {
    printf '%s: %s\n' "$program" "$*"
}

fail() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

read_options() {
    for option in "$@"; do
        case $option in
        --dry-run) dry_run=yes ;;
        --help)
            usage
            exit 0
            ;;
        *)
            printf '%s: unknown option "%s"\n' "$program" "$option" >&2
            usage >&2
            exit 2
            ;;
        esac
    done
}

# Sets $family from ID and ID_LIKE; METEORIT_OS_RELEASE names another file to read them from.
find_distribution() {
    os_release=${METEORIT_OS_RELEASE:-/etc/os-release}
    ids=
    if [ -r "$os_release" ]; then
        # shellcheck source=/dev/null disable=SC2086 # lists of words
        ids=$(ID='' ID_LIKE='' && . "$os_release" && echo $ID $ID_LIKE)
    fi
    for id in $ids; do
        case $id in
        debian | ubuntu) family=debian ;;
        rhel | fedora | centos) family=rhel ;;
        *) continue ;;
        esac
        return
    done
    fail "does not know the packages of this distribution (${ids:-without a name in $os_release}); needed: $needs. Once they are there, INSTALL=no makes make skip this step"
}

is_installed() {
    case $family in
    debian) dpkg-query --show --showformat '${Status}\n' "$1" 2>/dev/null | grep -q ' ok installed$' ;;
    # By what a package provides: curl-minimal is a curl, zlib-ng-compat-devel a zlib-devel.
    rhel) rpm --query --whatprovides "$1" >/dev/null 2>&1 ;;
    esac
}

# Whether the distribution's repositories have the package.
is_offered() {
    case $family in
    debian) LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]' ;;
    rhel) [ -n "$(dnf --quiet repoquery --whatprovides "$1" 2>/dev/null)" ] ;;
    esac
}

# want NAME[|NAME...]: unless one of them is installed, the first that the repositories have is added to $missing.
want() {
    names=$(echo "$1" | tr '|' ' ')
    for name in $names; do
        if is_installed "$name"; then
            return
        fi
    done
    chosen=${1%%|*}
    if [ "$names" != "$chosen" ]; then
        for name in $names; do
            if is_offered "$name"; then
                chosen=$name
                break
            fi
        done
    fi
    missing="$missing $chosen"
}

# Sets $as_root to what goes before a command to run it as root; fails where nothing does.
find_root() {
    as_root=
    [ "$(id -u)" -ne 0 ] || return 0
    # Without a terminal sudo can ask for no password.
    if command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || [ $dry_run = yes ] || sudo -n true 2>/dev/null; }; then
        as_root='sudo '
    else
        [ $dry_run = yes ]
    fi
}

# The commands that install $missing, one a line.
commands() {
    case $family in
    debian)
        units=$(units_to_hold)
        if [ -n "$units" ]; then
            echo "systemctl --quiet --runtime mask$units"
        fi
        if [ -z "$refreshed" ]; then
            echo "apt-get update --quiet"
        fi
        # --no-remove: rather an error than a package less.
        echo "env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends --no-remove$missing"
        if [ -n "$units" ]; then
            echo "systemctl --quiet --runtime unmask$units"
            echo "systemctl --quiet disable$units"
        fi
        ;;
    rhel)
        echo "dnf --assumeyes --setopt=install_weak_deps=False install$missing"
        ;;
    esac
}

# The services that installing $missing would start (nginx-dev brings nginx along).
units_to_hold() {
    if [ -d /run/systemd/system ]; then
        for service in nginx redis-server valkey-server; do
            case "$missing " in
            *" $service "* | *" $service-dev "*) is_installed $service || printf ' %s.service' $service ;;
            esac
        done
    fi
}

# Installs $missing, or prints what would; $hint is what a failure adds.
install_missing() {
    list=$(commands)
    find_root || fail "missing:$missing; you are not root and cannot use sudo. As root run: $(echo "$list" | sed ':all; N; $! b all; s/\n/ \&\& /g')"
    if [ $dry_run = yes ]; then
        echo "$list" | sed "s/^/$as_root/"
    else
        held=$(units_to_hold)
        trap release EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        while read -r command <&3; do
            run_as_root "$command" || fail "could not install$missing${hint:+; $hint}"
        done 3<<END
$list
END
        trap - EXIT INT TERM
    fi
    refreshed=yes
    missing=
}

# Brings the list of packages up to date, unless that was done or cannot be.
refresh() {
    if [ "$family,$dry_run" = debian,no ] && [ -z "$refreshed" ] && find_root; then
        run_as_root 'apt-get update --quiet'
        refreshed=yes
    fi
}

run_as_root() {
    echo "+ $as_root$1"
    # shellcheck disable=SC2086 # words, without quotes in them
    $as_root $1
}

release() {
    if [ -n "$held" ]; then
        run_as_root "systemctl --quiet --runtime unmask$held"
    fi
}
