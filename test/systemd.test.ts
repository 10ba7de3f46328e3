/** The units of deploy/systemd/, as far as that goes without a running systemd, and the agent under their restrictions. */

import assert from 'node:assert/strict'
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startAgent, stopAgent } from '../src/lab/agent.ts'
import { ip, run } from '../src/lab/command.ts'
import { TWEED } from './e2e/agent.ts'
import { Overlay } from './e2e/overlay.ts'

const UNITS = fileURLToPath(new URL('../deploy/systemd', import.meta.url))
const DOCKER = '/lib/systemd/system/docker.service'
/** Tenths: systemd calls up to 4 "OK". */
const EXPOSURE = 22

let directory: string

/** The units beside Debian's of Docker, with the tweed of this checkout. */
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'units-'))
  await cp(UNITS, directory, { recursive: true })
  await cp(DOCKER, join(directory, 'docker.service'))
  for (const name of await readdir(directory)) {
    if (!/^tweed.*\.service$/.test(name)) continue
    const path = join(directory, name)
    const text = await readFile(path, 'utf8')
    await writeFile(path, text.replace(/^ExecStart=tweed /m, `ExecStart=${TWEED} `))
  }
})

after(() => rm(directory, { recursive: true }))

for (const name of ['tweed.service', 'tweed-docker.service', 'docker.service']) {
  test(`systemd has nothing to say against ${name}`, async () => {
    const verify = `systemd-analyze verify --man=no --recursive-errors=no ${join(directory, name)} 2>&1`
    assert.equal(await run('sh', ['-c', verify]), '')
  })
}

test('the agent is exposed as little as it can be', async () => {
  const words = ['--offline=true', `--threshold=${EXPOSURE}`, join(directory, 'tweed.service')]
  await run('systemd-analyze', ['security', '--no-pager', ...words])
})

test('Docker gets our options after those of its own file', async () => {
  const unit = await readFile(join(directory, 'docker.service'), 'utf8')
  const dropIn = await readFile(join(directory, 'docker.service.d/tweed.conf'), 'utf8')
  assert.match(unit, /^ExecStart=.* \$DOCKER_OPTS$/m)
  assert.match(dropIn, /^EnvironmentFile=\/run\/docker_opts\.env$/m)
})

for (const mode of ['iptables', 'nftables']) {
  test(`the agent does its work with the unit's capabilities and a read-only disk: ${mode}`, async () => {
    const config = {
      Network: '10.10.0.0/16',
      EnableNFTables: mode === 'nftables',
      Backend: { Type: 'vxlan' },
    }
    await using overlay = await Overlay.build(1, JSON.stringify(config))
    const host = overlay.host(0)
    const unit = await readFile(join(UNITS, 'tweed.service'), 'utf8')
    const program = ['env', 'FLANNELD_IP_MASQ=true', ...confine(unit), TWEED]
    const agent = await startAgent(overlay.lab, host, program, AbortSignal.timeout(20_000))
    const status = await readFile(`/proc/${agent.pid}/status`, 'utf8')
    // CAP_NET_ADMIN is 12, CAP_NET_RAW 13.
    assert.match(status, /^CapEff:\t0000000000003000$/m)
    assert.match(status, /^NoNewPrivs:\t1$/m)
    assert.match(await readFile(host.subnetFile, 'utf8'), /^FLANNEL_SUBNET=10\.10\.10\.1\/24$/m)
    assert.match(await ip(host.namespace, '-4 address show flannel.1'), / 10\.10\.10\.0\/32 /)
    const list = mode === 'iptables' ? ['iptables-save'] : ['nft', 'list', 'ruleset']
    assert.match(await run('nsenter', [`--net=${host.path}`, ...list]), /masquerade/i)
    await stopAgent(agent)
    assert.equal(agent.exitCode, 0)
  })
}

/** A program with the capabilities that the unit leaves, and nothing to write to but what is in /run. */
function confine(unit: string): string[] {
  const [, names] = /^CapabilityBoundingSet=(.+)$/m.exec(unit) ?? []
  assert.ok(names !== undefined)
  const capabilities = names.split(' ').map((name) => name.replace('CAP_', '+').toLowerCase())
  const readOnly = 'mount --rbind /run /run && mount -o remount,bind,ro / && exec "$@"'
  const drop = `--bounding-set=-all,${capabilities.join()}`
  return ['unshare', '--mount', 'sh', '-c', readOnly, 'sh', 'setpriv', drop, '--no-new-privs']
}
