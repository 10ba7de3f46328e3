/** nftables as others leave it: flushed, reordered, full of foreign rules. */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Nftables } from '../../src/masquerade/nftables.ts'
import { DONE, RULES, repair, shell } from './firewall-fixture.ts'
import { Host } from './namespace.ts'

const TABLE = `table ip flannel-ipv4 {
	comment "rules for flannel-ipv4"
	chain postrtg {
		comment "chain to manage traffic masquerading by flannel"
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr 10.10.1.0/24 ip daddr 10.10.0.0/16 return
		ip saddr 10.10.0.0/16 ip daddr 10.10.1.0/24 return
		ip saddr != 10.10.0.0/16 ip daddr 10.10.1.0/24 return
		ip saddr 10.10.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.10.0.0/16 ip daddr 10.10.0.0/16 masquerade fully-random
	}

	chain forward {
		comment "chain to accept flannel traffic"
		type filter hook forward priority filter; policy accept;
		ip saddr 10.10.0.0/16 accept
		ip daddr 10.10.0.0/16 accept
	}
}
`

/** Everything, IPv4 first: which of the two tables is older is left to chance. */
async function listAll(host: Host): Promise<string> {
  return await shell(host, 'nft list ruleset ip; nft list ruleset ip6')
}

describe('nftables', () => {
  it('lists the rules under the names of flannel, and has nothing to do a second time', async () => {
    await using host = await Host.create('192.0.2.1')
    await repair(new Nftables({ netns: host.path }))
    assert.deepEqual(await new Nftables({ netns: host.path }).ensure(RULES), DONE)
    assert.equal(await shell(host, 'nft list table ip flannel-ipv4'), TABLE)
  })

  it('is repaired, whatever was done to it', async () => {
    await using host = await Host.create('192.0.2.1')
    const firewall = new Nftables({ netns: host.path })
    await repair(firewall)
    const good = await listAll(host)
    const nat = 'type nat hook postrouting priority'
    const damages = [
      'nft flush ruleset',
      'nft delete table ip flannel-ipv4',
      'nft flush chain ip6 flannel-ipv6 postrtg',
      'nft insert rule ip flannel-ipv4 postrtg masquerade',
      'nft replace rule ip flannel-ipv4 forward handle $(nft -a list table ip flannel-ipv4 | sed -n "s/.*daddr.* accept # handle //p") drop',
      `nft 'flush chain ip6 flannel-ipv6 forward; add rule ip6 flannel-ipv6 forward ip6 daddr fd10::/48 accept;
        add rule ip6 flannel-ipv6 forward ip6 saddr fd10::/48 accept'`,
      `nft 'delete chain ip flannel-ipv4 postrtg; add chain ip flannel-ipv4 postrtg { ${nat} 90; }'`,
      `nft 'add chain ip flannel-ipv4 mine { type filter hook forward priority 1; policy drop; }'`,
      `nft 'add table ip flannel-ipv4 { flags dormant; }'`,
    ]
    for (const damage of damages) {
      await shell(host, damage)
      assert.notEqual(await listAll(host), good, damage)
      await repair(firewall)
      assert.equal(await listAll(host), good, damage)
    }
  })

  it('keeps what is not ours', async () => {
    await using host = await Host.create('192.0.2.1')
    await shell(
      host,
      `nft 'table ip flannel { chain postrtg { type nat hook postrouting priority 100;
      ip saddr 10.10.0.0/16 masquerade; }; }'; nft 'table inet flannel-ipv4 { set s { type ipv4_addr; }; }'`,
    )
    const before = await shell(host, 'nft -a list ruleset')
    const firewall = new Nftables({ netns: host.path })
    await repair(firewall)
    const after = await shell(host, 'nft -a list ruleset')
    assert.ok(after.startsWith(before), after)
    await firewall.remove()
    assert.deepEqual(await firewall.remove(), DONE)
    assert.equal(await shell(host, 'nft -a list ruleset'), before)
  })
})
