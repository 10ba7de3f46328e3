import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { notifySystemd } from './systemd.ts'

/** Listens as systemd does, and prints what comes. */
const LISTENER = `
  use Socket; $| = 1;
  my $path = shift; my $name = $path; $name =~ s/^@/\\0/;
  socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die $!;
  bind($s, sockaddr_un($name)) or die $!;
  print STDERR "bound\\n";
  recv($s, my $got, 4096, 0); print $got;`

async function heard(path: string, say: () => void): Promise<string> {
  const listener = spawn('perl', ['-e', LISTENER, path], { stdio: ['ignore', 'pipe', 'pipe'] })
  const deadline = setTimeout(() => listener.kill(), 5000)
  const output = text(listener.stdout)
  await once(listener.stderr, 'data')
  say()
  const said = await output
  clearTimeout(deadline)
  return said
}

test('the state reaches a socket in the file system, and an abstract one', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'tweed-notify-'))
  try {
    for (const path of [join(directory, 'notify'), `@tweed-notify-${process.pid}`]) {
      const said = await heard(path, () => notifySystemd(path, 'READY=1\nSTATUS=in sync'))
      assert.equal(said, 'READY=1\nSTATUS=in sync')
    }
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('that nobody listens is no error', () => {
  for (const path of [undefined, '', '/nowhere/notify', `/${'x'.repeat(200)}`]) notifySystemd(path, 'READY=1')
})
