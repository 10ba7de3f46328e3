/** What the tests of the packet filter share: the rules, and how others look at them and spoil them. */

import assert from 'node:assert/strict'
import { parsePrefix } from '../../src/address/prefix.ts'
import type { Firewall, Outcome } from '../../src/masquerade/firewall.ts'
import type { FirewallRules } from '../../src/masquerade/rules.ts'
import type { Host } from './namespace.ts'

export const RULES: FirewallRules = {
  networks: {
    inet: { network: parsePrefix('10.10.0.0/16'), subnet: parsePrefix('10.10.1.0/24') },
    inet6: { network: parsePrefix('fd10::/48'), subnet: parsePrefix('fd10:0:0:1::/64') },
  },
  masquerade: true,
  forward: true,
  randomFully: true,
}

export const DONE: Outcome = { changes: [], failures: [] }

export const VARIANTS = ['iptables-nft', 'iptables-legacy'] as const

/** A command line on the host. */
export async function shell(host: Host, line: string): Promise<string> {
  return await host.exec('sh', '-e', '-c', line)
}

/** What `iptables-save` says, without comments and counters, which change by themselves. */
export async function save(host: Host, program: string): Promise<string> {
  const text = await host.exec(`${program}-save`)
  return text.replaceAll(/^#.*\n/gm, '').replaceAll(/\[\d+:\d+\]/g, '')
}

/** Both families. */
export async function saveAll(host: Host, program: string): Promise<string> {
  return (await save(host, program)) + (await save(host, program.replace('ip', 'ip6')))
}

/** The rules are as wanted after this, and were not before. */
export async function repair(firewall: Firewall): Promise<void> {
  const { changes, failures } = await firewall.ensure(RULES)
  assert.deepEqual(failures, [])
  assert.ok(changes.length > 0, 'there was something to repair')
  assert.deepEqual(await firewall.ensure(RULES), DONE)
}
