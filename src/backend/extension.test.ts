import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parsePrefix } from '../address/prefix.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import type { HostFacts } from './backend.ts'
import {
  dataFault,
  expand,
  ownVariables,
  peerInput,
  peerVariables,
  planExtension,
  readCommands,
  sameCall,
  splitCommand,
} from './extension.ts'

const ADDRESSES = { inet: parseIp('192.168.1.10'), inet6: parseIp('fd00::10') }
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: ADDRESSES },
  publicIps: ADDRESSES,
  links: new Map([['flannel.1', { mac: undefined, addresses: [parseIp('10.10.10.0')] }]]),
  underlay: [],
}
const DUAL = { EnableIPv6: true, IPv6Network: 'fd10::/48' }
const PEER: Lease = {
  key: '10.10.11.0-24' as LeaseKey,
  subnets: { inet: parsePrefix('10.10.11.0/24') },
  publicIps: { inet: parseIp('192.168.1.11') },
  backendType: 'extension',
  backendData: { inet: 'data of 11' },
  expires: undefined,
  created: 11,
}
const DUAL_PEER: Lease = {
  ...PEER,
  subnets: { ...PEER.subnets, inet6: parsePrefix('fd10:0:0:11::/64') },
  publicIps: { ...PEER.publicIps, inet6: parseIp('fd00::11') },
}

function config(settings: object = {}, network: object = {}) {
  const backend = { Type: 'extension', ...settings }
  return parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', ...network, Backend: backend }))
}

describe('a command', () => {
  test('is split at white space, and nothing else', () => {
    const split = (text: string) => splitCommand('C', text, [])
    assert.deepEqual(split('  ip\troute \n show  '), ['ip', 'route', 'show'])
    assert.deepEqual(split(''), [])
    assert.deepEqual(split(`echo {"key":"a b"} 'c d' * ~ #e`), [
      'echo',
      '{"key":"a',
      'b"}',
      "'c",
      "d'",
      '*',
      '~',
      '#e',
    ])
  })

  test('has its variables replaced in every word, once, by what they hold', () => {
    const command = splitCommand('C', 'p $A ${A} x$A-${B}y $ $1 $$A', ['A', 'B'])
    const hostile = '$B `id` $(id) "; rm\n$& $1'
    assert.deepEqual(expand(command, { A: hostile, B: 'b' }), [
      'p',
      hostile,
      hostile,
      `x${hostile}-by`,
      '$',
      '$1',
      `$${hostile}`,
    ])
  })

  test('a variable of a family that is not there is an empty argument', () => {
    const command = splitCommand('C', 'p $SUBNET $IPV6SUBNET end', ['SUBNET', 'IPV6SUBNET'])
    assert.deepEqual(expand(command, peerVariables(PEER)), ['p', '10.10.11.0/24', '', 'end'])
  })

  test('of a prototype there are no variables', () => {
    assert.throws(() => splitCommand('C', 'p $constructor', ['SUBNET']), { name: 'ConfigError' })
  })

  for (const [text, problem] of [
    ['a; b', /"a;" means something to a shell alone, and there is none: put it into a script$/],
    ['a && b', /"&&" means/],
    ['a | b', /"\|" means/],
    ['a &', /"&" means/],
    ['a 2>/dev/null', /"2>\/dev\/null" means/],
    ['a >b', /">b" means/],
    ['a $(b)', /"\$\(b\)" means/],
    ['a `b`', /"`b`" means/],
    ['a $SUBNE', /it has no \$SUBNE; allowed are \$SUBNET, \$PUBLIC_IP, \$IPV6SUBNET, \$PUBLIC_IPV6$/],
    ['a ${SUBNET:-b}', /it has no \$\{SUBNET:-b\}; allowed/],
    ['a ${}', /it has no \$\{\}; allowed/],
    ['a ${SUBNET', /"\$\{SUBNET" has a \$\{ without its \}$/],
    ['$SUBNET a', /the program must be named, not be the value of \$SUBNET$/],
    ['a b\u0000c', /it holds a control character$/],
  ] as const) {
    test(`${JSON.stringify(text)} is refused`, () => {
      assert.throws(() => readCommands(config({ SubnetAddCommand: text })), {
        name: 'ConfigError',
        message: new RegExp(`^Backend\\.SubnetAddCommand is .*: .*${problem.source}`),
      })
    })
  }

  test('each has its own variables; an absent one is empty', () => {
    assert.deepEqual(readCommands(config({ SubnetAddCommand: 'a $SUBNET', ShutdownCommand: 'b $NETWORK' })), {
      PreStartupCommand: [],
      PostStartupCommand: [],
      SubnetAddCommand: ['a', '$SUBNET'],
      SubnetRemoveCommand: [],
      ShutdownCommand: ['b', '$NETWORK'],
    })
    assert.throws(
      () => readCommands(config({ PreStartupCommand: 'a $SUBNET' })),
      /it has no \$SUBNET; it has no variables$/,
    )
    assert.throws(() => readCommands(config({ SubnetAddCommand: 'a $NETWORK' })), /it has no \$NETWORK/)
    assert.throws(
      () => readCommands(config({ PostStartupCommand: 7 })),
      /PostStartupCommand is 7: it must be a string/,
    )
  })
})

describe('what commands are told', () => {
  test('of a peer: its addresses as variables, its data on standard input', () => {
    assert.deepEqual(peerVariables(DUAL_PEER), {
      SUBNET: '10.10.11.0/24',
      PUBLIC_IP: '192.168.1.11',
      IPV6SUBNET: 'fd10:0:0:11::/64',
      PUBLIC_IPV6: 'fd00::11',
    })
    assert.equal(peerInput(PEER), 'data of 11\n')
    assert.equal(peerInput({ ...PEER, backendData: {} }), '\n')
  })

  test('of ourselves: the network too', () => {
    assert.deepEqual(ownVariables(config({}, DUAL), DUAL_PEER), {
      NETWORK: '10.10.0.0/16',
      ...peerVariables(DUAL_PEER),
    })
  })

  test('a lease that was renewed says the same; one with other data, address or subnet does not', () => {
    assert.ok(sameCall(PEER, { ...PEER, expires: 5, created: 12 }))
    assert.ok(!sameCall(PEER, { ...PEER, backendData: { inet: 'other' } }))
    assert.ok(!sameCall(PEER, { ...PEER, publicIps: { inet: parseIp('192.168.1.12') } }))
    assert.ok(!sameCall(PEER, DUAL_PEER))
  })
})

describe('extension', () => {
  test('has the MTU of the interface, publishes what it is given, and asks nothing of the kernel', () => {
    const plan = planExtension(config({}, DUAL), HOST, 'mine')
    assert.deepEqual([plan.type, plan.leaseType, plan.mtu], ['extension', 'extension', 1500])
    assert.deepEqual(plan.advertised, { inet: 'mine' })
    assert.deepEqual(planExtension(config(), HOST, undefined).advertised, {})
    const sixOnly = config({}, { ...DUAL, EnableIPv4: false })
    assert.deepEqual(planExtension(sixOnly, HOST, 'mine').advertised, { inet6: 'mine' })
    assert.deepEqual([plan.own(PEER).entries, plan.peer(PEER).entries], [[], []])
    assert.deepEqual([...plan.scope.links], ['flannel.1'])
  })

  test('takes the data of a peer as text, whatever it would mean to a shell', () => {
    const { judge } = planExtension(config(), HOST, undefined)
    for (const data of ['', '$(reboot)', '`id`; "\'', 'two\nlines\tand a tab', 'é €', 'x'.repeat(65_536)]) {
      assert.deepEqual(judge({ ...PEER, backendData: { inet: data } }), { claims: [] })
    }
    assert.deepEqual(judge({ ...PEER, backendData: {} }), { claims: [] })
    assert.deepEqual(judge({ ...PEER, publicIps: {} }), { refused: 'it has no IPv4 subnet' })
  })

  for (const [data, fault] of [
    [{ VtepMAC: 'x' }, 'it is object, not a string'],
    [7, 'it is number, not a string'],
    ['x'.repeat(65_537), 'it is longer than 65536 bytes'],
    ['€'.repeat(21_846), 'it is longer than 65536 bytes'],
    ['a\u0000b', 'it holds the character U+0000'],
    ['a\rb', 'it holds the character U+000D'],
    ['a\u001b[2J', 'it holds the character U+001B'],
    ['a\u202eb', 'it holds the character U+202E'],
    ['a\u2028b', 'it holds the character U+2028'],
    ['a\ud800b', 'it holds the character U+D800'],
  ] as const) {
    test(`refuses data that ${fault.slice(3)}`, () => {
      assert.equal(dataFault(data), fault)
      assert.deepEqual(
        planExtension(config(), HOST, undefined).judge({ ...PEER, backendData: { inet: data } }),
        { refused: `BackendData cannot be used: ${fault}` },
      )
    })
  }
})
