import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parsePrefix } from '../address/prefix.ts'
import { hasRandomFully } from './iptables.ts'
import { parseSave, planRestore } from './iptables-rules.ts'
import { type FirewallRules, NO_RULES, planRules } from './rules.ts'

const RULES: FirewallRules = {
  networks: {
    inet: { network: parsePrefix('10.10.0.0/16'), subnet: parsePrefix('10.10.1.0/24') },
    inet6: { network: parsePrefix('fd10::/48'), subnet: parsePrefix('fd10:0:0:1::/64') },
  },
  masquerade: true,
  forward: true,
  randomFully: true,
}
const IPV4 = planRules(RULES, 'inet')
const NONE = planRules(NO_RULES, 'inet')

/** flannel's, as `iptables-restore` takes them. */
const SCRIPT = `*nat
:FLANNEL-POSTRTG - [0:0]
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.1.0/24 -d 10.10.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.0.0/16 -d 10.10.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.10.0.0/16 -d 10.10.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.10.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.10.0.0/16 -d 10.10.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FLANNEL-FWD -s 10.10.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.10.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
COMMIT
`

/** What is saved when the script was restored: the same lines, and the built-in chains. */
const SAVED = SCRIPT.replace('*nat', '*nat\n:POSTROUTING ACCEPT [0:0]').replace(
  '*filter',
  '*filter\n:FORWARD DROP [12:34]',
)

/** The script that leads from the saved text to the rules. */
function script(saved: string, planned = IPV4): string {
  return planRestore('inet', planned, parseSave(saved)).script
}

/** `SAVED` with a part of it replaced, which must be there. */
function saved(part: string, replacement: string): string {
  assert.ok(SAVED.includes(part), part)
  return SAVED.replace(part, replacement)
}

describe('iptables rules', () => {
  it('are the ones of flannel, in its order', () => {
    assert.equal(script(''), SCRIPT)
  })

  it('are the same for IPv6, with its own multicast prefix', () => {
    const expected = SCRIPT.replaceAll('10.10.1.0/24', 'fd10:0:0:1::/64')
      .replaceAll('10.10.0.0/16', 'fd10::/48')
      .replace('224.0.0.0/4', 'ff00::/8')
    assert.equal(planRestore('inet6', planRules(RULES, 'inet6'), parseSave('')).script, expected)
  })

  it('take random ports only where asked to', () => {
    const planned = planRules({ ...RULES, randomFully: false }, 'inet')
    assert.equal(script('', planned), SCRIPT.replaceAll(' --random-fully', ''))
  })

  it('are left alone when they are as planned', () => {
    assert.deepEqual(planRestore('inet', IPV4, parseSave(SAVED)), { script: '', changes: [] })
  })

  it('are written chain by chain, each only when it differs', () => {
    const [nat = '', filter = ''] = SCRIPT.split(/(?=\*filter)/)
    const jump = '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG\n'
    assert.equal(script(saved(jump, '')), `*nat\n${jump}COMMIT\n`)
    assert.equal(
      script(saved('-A FLANNEL-FWD -s 10.10.0.0/16', '-A FLANNEL-FWD -s 10.11.0.0/16')),
      filter.replace(/^-A FORWARD.*\n/m, ''),
    )
    const first = /-A FLANNEL-POSTRTG -m mark.*\n/.exec(SAVED)?.[0] ?? ''
    assert.equal(script(saved(first, '').replace(jump, first + jump)), nat.replace(jump, ''))
  })

  it('replace what flannel before v0.21 wrote, and what it wrote for another network', () => {
    const old = [
      '-A POSTROUTING -s 10.10.0.0/16 -d 10.10.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
      '-A POSTROUTING -s 10.99.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully',
    ]
    const foreign = '-A POSTROUTING -s 10.10.0.0/16 -d 10.10.0.0/16 -j RETURN'
    const before = saved(
      '-A FLANNEL-POSTRTG -m mark',
      `${foreign}\n${old.join('\n')}\n-A FLANNEL-POSTRTG -m mark`,
    )
    assert.equal(script(before), `*nat\n${old.join('\n').replaceAll('-A', '-D')}\nCOMMIT\n`)
  })

  it('have one jump: of two, one goes', () => {
    const jump = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD'
    assert.equal(script(saved(jump, `${jump}\n${jump}`)), `*filter\n${jump.replace('-A', '-D')}\nCOMMIT\n`)
  })

  it('go with their chains when they are not wanted', () => {
    const { script: text, changes } = planRestore('inet', NONE, parseSave(SAVED))
    assert.equal(
      text,
      `*nat
-D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-F FLANNEL-POSTRTG
-X FLANNEL-POSTRTG
COMMIT
*filter
-D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-F FLANNEL-FWD
-X FLANNEL-FWD
COMMIT
`,
    )
    assert.deepEqual(
      changes.map(({ chain }) => chain),
      ['nat FLANNEL-POSTRTG', 'filter FLANNEL-FWD'],
    )
  })

  it('leave an empty chain to those who jump to it', () => {
    const jump = '-A MINE -p udp -g FLANNEL-FWD'
    const lines = script(saved(':FORWARD', `:MINE - [0:0]\n${jump}\n:FORWARD`), NONE)
    assert.match(lines, /^-F FLANNEL-FWD$/m)
    assert.doesNotMatch(lines, /-X FLANNEL-FWD|MINE/)
    assert.equal(
      script(`*filter\n:FORWARD DROP [0:0]\n:FLANNEL-FWD - [0:0]\n:MINE - [0:0]\n${jump}\nCOMMIT\n`, NONE),
      '',
    )
  })
})

describe('--random-fully', () => {
  it('came with iptables 1.6.2', () => {
    const versions = ['v1.4.21', 'v1.6.1', 'v1.6.2', 'v1.8.9 (nf_tables)', 'v1.10.0', 'v2.0.0', 'of old']
    assert.deepEqual(
      versions.map((version) => hasRandomFully(`iptables ${version}`)),
      [false, false, true, true, true, true, false],
    )
  })
})
