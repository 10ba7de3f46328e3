/**
 * Two hosts on one wire, in each way in which the kernel may find the other: by the leases, by misses that are answered,
 * by a multicast group. A datagram from one reaches an address in the subnet of the other and is answered.
 */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import { ADDRESSES, OWN_MAC, Overlay, peerMac } from './fixture.ts'
import { Host } from './namespace.ts'

const PORT = 4243

const ECHO = `
  const { createSocket } = require('node:dgram')
  const socket = createSocket(process.argv[1].includes(':') ? 'udp6' : 'udp4')
  socket.on('message', (text, { address, port }) => socket.send(text, port, address))
  socket.bind(${PORT}, process.argv[1], () => console.log('ready'))`

/** One datagram of the size given, and no second. */
const ASK = `
  const { createSocket } = require('node:dgram')
  const socket = createSocket(process.argv[1].includes(':') ? 'udp6' : 'udp4')
  socket.on('message', () => { console.log('answered'); process.exit() })
  socket.send(Buffer.alloc(Number(process.argv[2])), ${PORT}, process.argv[1])
  setTimeout(() => { console.log('no answer'); process.exit() }, 3000)`

for (const family of ['inet', 'inet6'] as const) {
  const net = new Overlay(family)
  const groups = family === 'inet' ? { Group: '239.1.1.1' } : { GroupV6: 'ff05::1' }
  const container = net.address(11, 5)

  describe(`two hosts, ${family}`, () => {
    let a: Host
    let b: Host
    before(async () => {
      ;[a, b] = await Host.createPair([ADDRESSES.inet, ADDRESSES.inet6], ['192.168.1.11', 'fd00::b'])
      await b.ip(`addr add ${container}/${net.bits} dev lo`)
    })
    after(async () => {
      await a[Symbol.asyncDispose]()
      await b[Symbol.asyncDispose]()
    })

    for (const [name, settings] of [
      ['static', {}],
      ['L3 misses', { L3Miss: true }],
      ['L3 and L2 misses', { L3Miss: true, L2Miss: true }],
      ['a group', groups],
    ] as const) {
      test(`${name}: the first datagram arrives`, async () => {
        const stop = new AbortController()
        const following: Promise<void>[] = []
        for (const [host, self, peer] of [
          [a, net.lease(10, OWN_MAC), net.lease(11)],
          [b, net.lease(11), net.lease(10, OWN_MAC, family === 'inet' ? '192.168.1.10' : 'fd00::10')],
        ] as const) {
          const number = host === a ? 10 : 11
          const backend = await net.backend(host, settings, number)
          const reconciler = await Reconciler.open({ scope: backend.scope, netns: host.path })
          reconciler.exchange([], [backend.own(self), backend.peer(peer)])
          assert.deepEqual((await reconciler.turn()).failures, [])
          assert.deepEqual((await reconciler.turn()).operations, [])
          following.push(follow(reconciler, stop.signal))
        }
        const echo = spawn('nsenter', [`--net=${b.path}`, process.execPath, '-e', ECHO, container], {
          stdio: ['ignore', 'pipe', 'inherit'],
        })
        try {
          await once(echo.stdout, 'data')
          assert.equal(await a.exec(process.execPath, '-e', ASK, container, '1'), 'answered\n')
          // The largest that is not cut in pieces: the least of FLANNEL_MTU in any config, less the headers of IP and UDP.
          const largest = String(1430 - (family === 'inet' ? 20 : 40) - 8)
          const before = await fragments(a)
          assert.equal(await a.exec(process.execPath, '-e', ASK, container, largest), 'answered\n')
          assert.equal(await fragments(a), before, 'a packet of FLANNEL_MTU is one packet')
          const learned = (await a.fdb(net.link)).filter(({ mac }) => mac === peerMac(11))
          assert.deepEqual(
            learned.map(({ dst, state }) => [dst, state]),
            [[net.publicIp(11), 'Group' in settings || 'GroupV6' in settings ? '' : 'permanent']],
          )
        } finally {
          echo.kill()
          stop.abort()
          await Promise.all(following)
        }
      })
    }
  })
}

/** How many fragments the host has made, of either family. */
async function fragments(host: Host): Promise<number> {
  const [snmp, snmp6] = [await host.exec('cat', '/proc/net/snmp'), await host.exec('cat', '/proc/net/snmp6')]
  const [names = '', values = ''] = snmp.split('\n')
  const inet = Number(values.split(' ')[names.split(' ').indexOf('FragCreates')])
  const inet6 = Number(/Ip6FragCreates\s+(\d+)/.exec(snmp6)?.[1])
  return inet + inet6
}

async function follow(reconciler: Reconciler, signal: AbortSignal): Promise<void> {
  for await (const { failures } of reconciler.run(signal)) assert.deepEqual(failures, [])
}
