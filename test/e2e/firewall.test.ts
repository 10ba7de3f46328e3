/** The agent and the packet filter: rules with the lease, repaired, exchanged when the config says another mode. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { run } from '../../src/lab/command.ts'
import type { Agent } from './agent.ts'
import { Overlay } from './overlay.ts'

const config = (enableNftables: boolean): string =>
  JSON.stringify({ Network: '10.10.0.0/16', EnableNFTables: enableNftables, Backend: { Type: 'vxlan' } })

let overlay: Overlay
let agent: Agent

before(async () => {
  overlay = await Overlay.build(1, config(false))
  agent = overlay.start(overlay.host(0), '--ip-masq', '--iptables-forward-rules', '--iptables-resync=1')
  await agent.untilReady()
})

after(() => overlay[Symbol.asyncDispose]())

/** What a program prints in the host's namespace. */
function inside(program: string, ...args: string[]): Promise<string> {
  return run('nsenter', [`--net=${overlay.host(0).path}`, program, ...args])
}

async function until(what: string, matches: () => Promise<boolean>): Promise<void> {
  await agent.untilStatus(what, () => true)
  const deadline = performance.now() + 20_000
  while (!(await matches())) assert.ok(performance.now() < deadline, `not ${what}: ${agent.stderr}`)
}

const iptablesHas = (pattern: RegExp) => async (): Promise<boolean> =>
  pattern.test(await inside('iptables-save'))

test('the rules stand when subnet.env says so', async () => {
  const rules = await inside('iptables-save')
  assert.match(rules, /-A FLANNEL-POSTRTG -s 10\.10\.0\.0\/16 ! -d 224\.0\.0\.0\/4 .*-j MASQUERADE/)
  assert.match(rules, /-A FLANNEL-FWD -s 10\.10\.0\.0\/16 .*-j ACCEPT/)
  assert.match(await run('cat', [overlay.host(0).subnetFile]), /^FLANNEL_IPMASQ=true$/m)
})

test('flushed, they come back within the resync period; a foreign rule stays', async () => {
  await inside('iptables', '-t', 'nat', '-A', 'POSTROUTING', '-s', '172.16.0.0/16', '-j', 'ACCEPT')
  await inside('iptables', '-t', 'nat', '-F', 'FLANNEL-POSTRTG')
  await inside('iptables', '-F', 'FORWARD')
  await until('repaired', iptablesHas(/-A FLANNEL-POSTRTG -s 10\.10\.0\.0\/16 ! -d 224/))
  await until('jumped to', iptablesHas(/-A FORWARD .*-j FLANNEL-FWD/))
  assert.ok(await iptablesHas(/-A POSTROUTING -s 172\.16\.0\.0\/16 -j ACCEPT/)())
  assert.ok((await agent.status()).counters.repaired > 0)
  assert.ok(agent.said(/^repaired firewall: /).length > 0)
})

test('a config that asks for nftables moves them there, and back', async () => {
  await overlay.putConfig(config(true))
  await until('in nftables', async () =>
    (await inside('nft', 'list', 'tables')).includes('table ip flannel-ipv4'),
  )
  await until('out of iptables', async () => !(await iptablesHas(/FLANNEL/)()))
  await overlay.putConfig(config(false))
  await until('in iptables', iptablesHas(/FLANNEL-POSTRTG/))
  await until('out of nftables', async () => !(await inside('nft', 'list', 'tables')).includes('flannel'))
  assert.ok(await iptablesHas(/-A POSTROUTING -s 172\.16\.0\.0\/16 -j ACCEPT/)())
})

test('SIGTERM leaves the rules, and the next agent changes none', async () => {
  await agent.end('SIGTERM')
  const rules = await inside('iptables-save', '-c').then((text) => text.replaceAll(/^#.*$|\[\d+:\d+\]/gm, ''))
  agent = overlay.start(overlay.host(0), '--ip-masq', '--iptables-forward-rules', '--iptables-resync=1')
  await agent.untilReady()
  assert.equal(
    await inside('iptables-save', '-c').then((text) => text.replaceAll(/^#.*$|\[\d+:\d+\]/gm, '')),
    rules,
  )
  assert.deepEqual(agent.said(/firewall/), [])
})
