import errno, os, random, struct, subprocess, sys
reference, mount, seed, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
random.seed(seed)
ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
# Users with their groups. Nobody has to have an account for it.
people = {0: [0], 5001: [6001, 6002], 5002: [6002], 5003: [6003], 5004: [6004, 6001]}
names = ['a', 'b', 'c']
places = ['d', 'd/a', 'd/b', 'd/a/b']
paths = places + [place + '/' + name for place in places for name in names]
ANYBODY = 0xffffffff

def as_one(uid, what):
    groups = people[uid]
    os.setgroups(groups)
    os.setegid(groups[0])
    os.seteuid(uid)
    try:
        return what()
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.seteuid(0)
        os.setegid(0)

def random_list():
    """Any list, most of them whole, some of them wrong."""
    bits = lambda: random.choice([0, 1, 4, 5, 6, 7, 7])
    users = random.sample([0, 5001, 5002, 5003, 5004], random.choice([0, 0, 1, 2]))
    groups = random.sample([6001, 6002, 6003, 6004], random.choice([0, 0, 1, 2]))
    entries = [(1, bits() | random.choice([0, 6]), ANYBODY)]
    entries += [(2, bits(), uid) for uid in sorted(users)]
    entries += [(4, bits(), ANYBODY)]
    entries += [(8, bits(), gid) for gid in sorted(groups)]
    if users or groups or random.random() < 0.2:
        entries += [(16, bits(), ANYBODY)]
    entries += [(32, bits(), ANYBODY)]
    if random.random() < 0.05:
        random.shuffle(entries)
    if random.random() < 0.05:
        entries.pop(random.randrange(len(entries)))
    if random.random() < 0.02:
        entries = []
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)

def draw():
    there = [path for path in paths if os.path.lexists(reference + '/' + path)]
    uid = random.choice(list(people))
    path, mask = random.choice(paths), random.choice([0, 0o022, 0o077, 0o027])
    mode = random.choice([0o777, 0o755, 0o750, 0o664, 0o666, 0o640, 0o600, 0o2775, 0o4755, 0o070, 0o1777])
    which, value = random.choice([ACCESS, ACCESS, DEFAULT]), random_list()
    owner, group = random.choice([5001, 5002, 5003]), random.choice([6001, 6002, 6003])
    kind = random.choice(['create', 'create', 'create', 'create', 'mkdir', 'mkdir', 'mkdir', 'fifo', 'list', 'list', 'list', 'list', 'bare', 'chmod',
                          'chmod', 'chown', 'chgrp', 'remove', 'open', 'truncate', 'rename', 'hard', 'touch'] + ['link'] * (random.random() < 0.3))
    other = random.choice(paths)
    makes = kind in ('create', 'mkdir', 'fifo', 'link')
    if random.random() < 0.9:
        path = random.choice([path for path in paths if (path not in there) == makes and os.path.dirname(path) in there + ['']] or paths)
    if random.random() < 0.6 and path in there:
        uid = os.lstat(reference + '/' + path).st_uid
    def step(root):
        at = root + '/' + path
        def create():
            old = os.umask(mask)
            try:
                os.close(os.open(at, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            finally:
                os.umask(old)
        def mkdir():
            old = os.umask(mask)
            try:
                os.mkdir(at, mode)
            finally:
                os.umask(old)
        def fifo():
            old = os.umask(mask)
            try:
                os.mkfifo(at, mode)
            finally:
                os.umask(old)
        def remove():
            try:
                os.unlink(at)
            except (IsADirectoryError, PermissionError):
                os.rmdir(at)
        return {
            'create': create, 'mkdir': mkdir, 'fifo': fifo, 'remove': remove,
            'link': lambda: os.symlink('a', at),
            'list': lambda: os.setxattr(at, which, value, follow_symlinks=False),
            'bare': lambda: os.removexattr(at, which, follow_symlinks=False),
            'chmod': lambda: os.chmod(at, mode),
            'chown': lambda: os.chown(at, owner, group, follow_symlinks=False),
            'chgrp': lambda: os.chown(at, -1, group, follow_symlinks=False),
            'open': lambda: os.close(os.open(at, os.O_RDWR | os.O_NONBLOCK)),
            'truncate': lambda: os.truncate(at, 3),
            'rename': lambda: os.rename(at, root + '/' + other),
            'hard': lambda: os.link(at, root + '/' + other, follow_symlinks=False),
            'touch': lambda: os.utime(at),
        }[kind]
    return uid, kind, (path, oct(mode), oct(mask), which, value.hex(), other), step

def get(at, name):
    try:
        return os.getxattr(at, name, follow_symlinks=False).hex()
    except OSError as error:
        return errno.errorcode[error.errno]

def state(root):
    """Everything that anybody can see of all there is."""
    found = {}
    for path in paths:
        at = root + '/' + path
        try:
            got = os.lstat(at)
        except OSError:
            continue
        seen = [oct(got.st_mode), got.st_uid, got.st_gid, get(at, ACCESS), get(at, DEFAULT)]
        seen.append(sorted(name for name in os.listxattr(at, follow_symlinks=False) if 'acl' in name))
        found[path] = seen
    return found

def rights(root, path):
    at = root + '/' + path
    asks = [lambda mode=mode: os.access(at, mode, effective_ids=True) for mode in range(1, 8)]
    asks += [lambda: os.close(os.open(at, os.O_RDONLY | os.O_NONBLOCK)), lambda: os.close(os.open(at, os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)),
             lambda: sorted(os.listdir(at)), lambda: os.stat(at + '/.').st_uid, lambda: os.lstat(at).st_gid]
    return {uid: [as_one(uid, ask) for ask in asks] for uid in people}

def begin(default):
    for root in (reference, mount):
        subprocess.run(['rm', '-rf', root + '/d'], check=True)
        os.mkdir(root + '/d')
        os.chmod(root + '/d', 0o777)
        if default:
            os.setxattr(root + '/d', DEFAULT, default)

done = {}
begin(None)
for number in range(steps):
    uid, kind, how, step = draw()
    results = [as_one(uid, step(root)) for root in (reference, mount)]
    order = (number, uid, kind, how)
    assert results[0] == results[1], (order, results)
    done[kind, results[0]] = done.get((kind, results[0]), 0) + 1
    wanted, got = state(reference), state(mount)
    differ = {path: (wanted.get(path), got.get(path)) for path in paths if wanted.get(path) != got.get(path)}
    assert not differ, (order, results, differ)
    if wanted:
        path = random.choice(list(wanted))
        wanted, got = rights(reference, path), rights(mount, path)
        assert wanted == got, (order, path, wanted, got, state(reference)[path])
    if number % 40 == 39:
        # What nobody can come to any more is made anew.
        default = [(1, 7, ANYBODY), (2, 6, 5002), (4, 5, ANYBODY), (8, 7, 6003), (16, 7, ANYBODY), (32, 5, ANYBODY)]
        begin(random.choice([None, struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in default)]))
print({key: done[key] for key in sorted(done, key=str)})
for kind in ('create', 'mkdir', 'fifo', 'list', 'bare', 'chmod', 'chgrp', 'open', 'truncate'):
    assert done.get((kind, None), 0) > steps // 200, (kind, done)
