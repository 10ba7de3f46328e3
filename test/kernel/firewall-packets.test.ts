/** The packet filter by its packets: what source address a server sees, and what is forwarded at all. */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Family } from '../../src/address/ip.ts'
import type { Firewall } from '../../src/masquerade/firewall.ts'
import { Iptables } from '../../src/masquerade/iptables.ts'
import { Nftables } from '../../src/masquerade/nftables.ts'
import { RULES } from './firewall-fixture.ts'
import { GROUPS, type Member, MEMBERS, NO_ANSWER, Router } from './router.ts'

const MODES: Record<string, (netns: string) => Firewall> = {
  'iptables-nft': (netns) => new Iptables({ netns, program: 'iptables-nft' }),
  'iptables-legacy': (netns) => new Iptables({ netns, program: 'iptables-legacy' }),
  nftables: (netns) => new Nftables({ netns }),
}

const FAMILIES: readonly Family[] = ['inet', 'inet6']

/** The address of a member, or of the host on the link to it. */
function address(member: Member, family: Family, of: 'member' | 'host' = 'member'): string {
  const separator = family === 'inet' ? '.' : ':'
  return `${MEMBERS[member][family]}${separator}${of === 'host' ? 1 : 2}`
}

/** Somebody else's: marks what the container sends, with the bit of kube-proxy and another one. */
const MARK = ['ip', 'ip6']
  .map(
    (family) => `table ${family} foreign { chain c { type filter hook prerouting priority mangle;
    iifname "container" meta mark set 0x4001; }; }`,
  )
  .join('\n')

for (const [mode, open] of Object.entries(MODES)) {
  describe(`packets in mode ${mode}`, async () => {
    for (const family of FAMILIES) {
      it(`have the host's address outside the network, and their own inside: ${family}`, async () => {
        await using router = await Router.create()
        const container = address('container', family)
        const remote = address('remote', family)
        const outside = address('outside', family)
        assert.equal(await router.seen('container', outside), container, 'the test would see no difference')

        const { changes, failures } = await open(router.netns).ensure(RULES)
        assert.deepEqual(failures, [])
        assert.ok(changes.length > 0)

        const host = {
          outside: address('outside', family, 'host'),
          remote: address('remote', family, 'host'),
        }
        assert.equal(await router.seen('container', outside), host.outside)
        assert.equal(await router.seen('container', remote), container)
        assert.equal(await router.seen('remote', container), remote)
        assert.equal(
          await router.seen('outside', container),
          outside,
          'the answer comes back through this host',
        )
        assert.equal(
          await router.seen('outside', remote),
          host.remote,
          'the answer has to come back through this host',
        )
        assert.equal(await router.seen('host', remote, host.outside), host.remote)
        const ours = address('container', family, 'host')
        assert.equal(await router.seen('host', outside, ours), host.outside)
        assert.equal(await router.seen('host', GROUPS[family], ours), ours, 'multicast keeps its source')

        await router.exec('nft -f /dev/stdin', MARK)
        assert.equal(
          await router.seen('container', outside),
          container,
          'kube-proxy masquerades what it marked',
        )
      })
    }

    it(`are ${mode === 'nftables' ? 'not ' : ''}forwarded where the policy of iptables is to drop`, async () => {
      await using router = await Router.create()
      const filter = mode === 'nftables' ? 'iptables-nft' : mode
      const outcome = await open(router.netns).ensure({ ...RULES, forward: false, masquerade: false })
      assert.deepEqual(outcome, { changes: [], failures: [] })
      for (const program of [filter, filter.replace('ip', 'ip6')])
        await router.exec(`${program} -P FORWARD DROP`)
      const outside = FAMILIES.map((family) => address('outside', family))
      const seen = () => Promise.all(outside.map((ip) => router.seen('container', ip)))
      assert.deepEqual(await seen(), [NO_ANSWER, NO_ANSWER])
      await open(router.netns).ensure({ ...RULES, masquerade: false })
      // In nftables nothing overrules another table's drop.
      const hosts =
        mode === 'nftables' ? [NO_ANSWER, NO_ANSWER] : FAMILIES.map((family) => address('container', family))
      assert.deepEqual(await seen(), hosts)
    })
  })
}
