import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parsePrefix } from '../address/prefix.ts'
import { parseTable, planTransaction } from './nftables-rules.ts'
import { type FirewallRules, NO_RULES, planRules } from './rules.ts'

const RULES: FirewallRules = {
  networks: { inet: { network: parsePrefix('10.10.0.0/16'), subnet: parsePrefix('10.10.1.0/24') } },
  masquerade: true,
  forward: false,
  randomFully: true,
}

const SCRIPT = `add table ip flannel-ipv4
delete table ip flannel-ipv4
table ip flannel-ipv4 {
  comment "rules for flannel-ipv4"
  chain postrtg {
    comment "chain to manage traffic masquerading by flannel"
    type nat hook postrouting priority 100; policy accept;
    meta mark & 16384 == 16384 return
    ip saddr 10.10.1.0/24 ip daddr 10.10.0.0/16 return
    ip saddr 10.10.0.0/16 ip daddr 10.10.1.0/24 return
    ip saddr != 10.10.0.0/16 ip daddr 10.10.1.0/24 return
    ip saddr 10.10.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
    ip saddr != 10.10.0.0/16 ip daddr 10.10.0.0/16 masquerade fully-random
  }
}`

/** An IPv4 rule as `nft -j list table` prints it; a prefix that begins with `!` is negated. */
function rule(source: string, destination: string, verdict: object): object {
  const match = (field: string, text: string) => {
    const [addr, len] = text.replace('!', '').split('/')
    const left = { payload: { protocol: 'ip', field } }
    return {
      match: { op: text.startsWith('!') ? '!=' : '==', left, right: { prefix: { addr, len: Number(len) } } },
    }
  }
  return {
    rule: {
      chain: 'postrtg',
      handle: 7,
      expr: [match('saddr', source), match('daddr', destination), verdict],
    },
  }
}

/** What nft lists of the table after the script; `flags` is how it writes them. */
function listing(flags: unknown): object[] {
  const mark = { match: { op: '==', left: { '&': [{ meta: { key: 'mark' } }, 0x4000] }, right: 0x4000 } }
  const masquerade = { masquerade: { flags } }
  const [network, subnet, back] = ['10.10.0.0/16', '10.10.1.0/24', { return: null }]
  return [
    { metainfo: { version: '1.0.6', json_schema_version: 1 } },
    { table: { family: 'ip', name: 'flannel-ipv4', handle: 1 } },
    { chain: { name: 'postrtg', type: 'nat', hook: 'postrouting', prio: 100, policy: 'accept', handle: 1 } },
    { rule: { chain: 'postrtg', handle: 2, expr: [mark, back] } },
    rule(subnet, network, back),
    rule(network, subnet, back),
    rule(`!${network}`, subnet, back),
    rule(network, '!224.0.0.0/4', masquerade),
    rule(`!${network}`, network, masquerade),
  ]
}

function plan(items: readonly object[] | undefined, rules = RULES) {
  const actual = items && parseTable(JSON.stringify({ nftables: items }))
  return planTransaction('inet', planRules(rules, 'inet'), actual)
}

describe('nftables rules', () => {
  it('are the ones of the iptables mode, in one transaction', () => {
    assert.equal(plan(undefined).script, SCRIPT)
  })

  it('are left alone when they are as planned, however nft writes one flag', () => {
    assert.equal(plan(listing('fully-random')).script, '')
    assert.equal(plan(listing(['fully-random'])).script, '')
  })

  it('are written anew when anything differs', () => {
    const rows = listing('fully-random')
    const different = {
      missing: rows.toSpliced(5, 1),
      reordered: rows.toSpliced(8, 1).toSpliced(3, 0, ...rows.slice(8)),
      surplus: [...rows, rule('10.10.0.0/16', '10.10.0.0/16', { drop: null })],
      dormant: rows.toSpliced(1, 1, { table: { name: 'flannel-ipv4', flags: 'dormant' } }),
      set: [...rows, { set: { name: 'mine' } }],
      chain: [...rows, { chain: { name: 'mine' } }],
      flags: listing('random'),
      priority: rows.toSpliced(2, 1, {
        chain: { name: 'postrtg', type: 'nat', hook: 'postrouting', prio: 90, policy: 'accept' },
      }),
    }
    for (const [what, items] of Object.entries(different)) assert.equal(plan(items).script, SCRIPT, what)
  })

  it('go with their table', () => {
    assert.equal(plan(listing('fully-random'), NO_RULES).script, SCRIPT.split('\n').slice(0, 2).join('\n'))
    assert.equal(plan(undefined, NO_RULES).script, '')
  })
})
