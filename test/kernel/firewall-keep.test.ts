/** The keeper of the rules, and the way from one mode to another. */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type FirewallReport, keep } from '../../src/masquerade/firewall.ts'
import { openFirewall } from '../../src/masquerade/mode.ts'
import { DONE, RULES, saveAll, shell, VARIANTS } from './firewall-fixture.ts'
import { Host } from './namespace.ts'

/** The report of the next turn. */
async function next(turns: AsyncGenerator<FirewallReport, void>): Promise<FirewallReport> {
  const { value } = await turns.next()
  assert.ok(value)
  return value
}

describe('another mode', () => {
  const modes = [
    { mode: 'iptables', program: 'iptables-nft' },
    { mode: 'iptables', program: 'iptables-legacy' },
    { mode: 'nftables', program: 'iptables' },
  ] as const

  /** Where rules of ours are. */
  async function places(host: Host): Promise<string[]> {
    const tables = await shell(host, 'nft list tables')
    const found: string[] = tables.includes('flannel') ? ['nftables'] : []
    for (const variant of VARIANTS)
      if (/FLANNEL|flanneld/.test(await saveAll(host, variant))) found.push(variant)
    return found
  }

  for (const from of modes) {
    for (const to of modes.filter((other) => other !== from)) {
      it(`is taken up without leftovers: ${from.mode} ${from.program} → ${to.mode} ${to.program}`, async () => {
        await using host = await Host.create('192.0.2.1')
        for (const { mode, program } of [from, to]) {
          const opened = await openFirewall(mode, { netns: host.path, program })
          const turns = keep({ ...opened, rules: RULES }, new AbortController().signal)
          const { failures, repaired } = await next(turns)
          assert.deepEqual(failures, [])
          assert.deepEqual(repaired, [])
          assert.deepEqual(await places(host), [mode === 'nftables' ? mode : program])
          assert.deepEqual(await opened.firewall.ensure(RULES), DONE)
        }
      })
    }
  }
})

describe('keep', () => {
  it('tells what it repaired, and ends with the signal', async () => {
    await using host = await Host.create('192.0.2.1')
    const controller = new AbortController()
    const opened = await openFirewall('nftables', { netns: host.path })
    const turns = keep({ ...opened, rules: RULES, interval: 10 }, controller.signal)
    const { changes, repaired } = await next(turns)
    assert.ok(changes.length > 0)
    assert.deepEqual(repaired, [])
    assert.deepEqual((await next(turns)).changes, [])
    await shell(host, 'nft flush ruleset')
    assert.deepEqual(
      (await next(turns)).repaired.map(({ chain }) => chain),
      ['flannel-ipv4', 'flannel-ipv6'],
    )
    controller.abort()
    assert.equal((await turns.next()).done, true)
    assert.match(await shell(host, 'nft list tables'), /flannel-ipv4/)
  })

  it('reports what is missing, and goes on', async () => {
    await using host = await Host.create('192.0.2.1')
    const { firewall, leftovers } = await openFirewall('iptables', {
      netns: host.path,
      program: 'twq-iptables',
    })
    const turns = keep({ firewall, leftovers, rules: RULES, interval: 10 }, new AbortController().signal)
    for (let turn = 0; turn < 2; turn++) {
      const { failures } = await next(turns)
      assert.match(failures[0]?.error.message ?? '', /the program twq-iptables is missing/)
    }
    assert.deepEqual(await firewall.ensure({ ...RULES, networks: {} }), DONE, 'nothing is wanted of it')
    assert.deepEqual(await firewall.remove(), DONE)
  })
})
