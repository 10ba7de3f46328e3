/** Commands as the extension backend runs them: real programs, no shell in between. */

import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, describe, test } from 'node:test'
import { parseIp } from '../src/address/ip.ts'
import type { HostFacts } from '../src/backend/backend.ts'
import { run } from '../src/backend/extension-commands.ts'
import { openBackend } from '../src/backend/table.ts'
import { parseNetworkConfig } from '../src/config/network-config.ts'

let folder: string

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tweed-extension-'))
})

after(() => rm(folder, { recursive: true }))

async function script(name: string, text: string): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, `#!/bin/sh\n${text}\n`, { mode: 0o755 })
  return path
}

function call(command: readonly string[], more: Partial<Parameters<typeof run>[0]> = {}): Promise<string> {
  return run({ command, variables: {}, input: '', signal: undefined, ...more })
}

const HOSTILE = `$(touch pwned) \`touch pwned\` '; touch pwned; ' " \\ $HOME & | > pwned\nsecond line`

describe('a command', () => {
  test('gives both its outputs, trimmed', async () => {
    const path = await script('both', 'echo; echo " one "; echo two >&2; echo')
    const printed = await call([path])
    assert.match(printed, /^\S[^]*\S$/)
    assert.deepEqual(new Set(printed.split(/\s+/)), new Set(['one', 'two']))
    assert.equal(await call([]), '')
  })

  test('gets a hostile value as one argument, and hostile data on its input, as they are', async () => {
    const path = await script('args', 'printf "<%s>" "$#" "$@" "$DATA"; echo; cat')
    const printed = await call([path, 'a', '$DATA', 'x${DATA}'], {
      variables: { DATA: HOSTILE },
      input: `${HOSTILE}\n`,
    })
    assert.equal(printed, `<3><a><${HOSTILE}><x${HOSTILE}><${HOSTILE}>\n${HOSTILE}`)
    await assert.rejects(readFile('pwned'), { code: 'ENOENT' })
  })

  test('has the environment of the agent beside its variables', async () => {
    const path = await script('env', 'echo "$PATH|$SUBNET"')
    assert.equal(await call([path], { variables: { SUBNET: 's' } }), `${process.env['PATH']}|s`)
  })

  test('that ends before it has read its input has not failed', async () => {
    assert.equal(await call(['true'], { input: 'x'.repeat(1_000_000) }), '')
  })

  for (const [what, text, message] of [
    ['fails', 'echo "it\x1b broke"; exit 3', /Err: exit status 3 Output: it\\u\{1b\} broke$/],
    ['dies', 'kill -TERM $$', /Err: signal: SIGTERM Output: $/],
  ] as const) {
    test(`that ${what} is an error with its output, made printable`, async () => {
      const path = await script(what, text)
      await assert.rejects(call([path, '$A'], { variables: { A: 'value' } }), {
        name: 'BackendError',
        message: new RegExp(`^failed to run command: ${path} \\$A ${message.source}`),
      })
    })
  }

  test('that does not exist, or cannot be run, is an error', async () => {
    await assert.rejects(call(['no-such-program']), {
      name: 'BackendError',
      message: /Err: exec: "no-such-program": executable file not found in \$PATH Output: $/,
    })
    await assert.rejects(call([folder]), { name: 'BackendError', message: /Err: spawn .* EACCES/ })
    await assert.rejects(call(['true', 'x'.repeat(1_000_000)]), { name: 'BackendError', message: /E2BIG/ })
  })

  test('that hangs is ended with all that it started', async () => {
    const path = await script('hang', 'sleep 1000 & echo $!; wait')
    const error = await call([path], { timeout: 300 }).catch((reason: unknown) => reason)
    assert.ok(error instanceof Error)
    const [, pid] = /Err: no end after 0\.3 s Output: (\d+)$/.exec(error.message) ?? []
    assert.ok(pid !== undefined, error.message)
    await sleep(20)
    assert.doesNotMatch(await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''), /\(sleep\) [^Z]/)
  })

  test('is ended by the signal', async () => {
    const stop = new AbortController()
    const ended = call(['sleep', '1000'], { signal: stop.signal })
    stop.abort()
    await assert.rejects(ended, /Err: signal: SIGKILL/)
    await assert.rejects(call(['sleep', '1000'], { signal: stop.signal }), /Err: signal: SIGKILL/)
  })

  test('that leaves a daemon behind is not waited for', async () => {
    const path = await script('daemon', 'sleep 1000 & echo $!')
    const started = performance.now()
    const pid = Number(await call([path]))
    assert.ok(performance.now() - started < 5000)
    process.kill(pid, 'SIGKILL')
  })
})

describe('opening the backend', () => {
  const addresses = { inet: parseIp('192.168.1.10') }
  const host: HostFacts = {
    external: { name: 'eth0', index: 2, mtu: 1500, addresses },
    publicIps: addresses,
    links: new Map(),
    underlay: [],
  }
  const open = (PreStartupCommand: string) => {
    const config = { Network: '10.10.0.0/16', Backend: { Type: 'extension', PreStartupCommand } }
    return openBackend(parseNetworkConfig(JSON.stringify(config)), host)
  }

  test('publishes what PreStartupCommand printed', async () => {
    const backend = await open(await script('pre', `echo ' {"key": 1} '`))
    assert.deepEqual(backend.advertised, { inet: '{"key": 1}' })
    assert.deepEqual((await open('')).advertised, {})
  })

  test('fails with it, and with output that peers would refuse', async () => {
    await assert.rejects(open('false'), {
      name: 'BackendError',
      message: 'failed to run command: false Err: exit status 1 Output: ',
    })
    await assert.rejects(open('head -c 65537 /dev/zero'), /is longer than 65536 bytes$/)
    await assert.rejects(open(await script('nul', `printf 'a\\000b'`)), /it holds the character U\+0000$/)
  })
})
