import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatIp, type Ip, parseIp } from '../address/ip.ts'
import { localMac, parseMac } from '../address/mac.ts'
import { parsePrefix, prefixContains, prefixLength, prefixOf } from '../address/prefix.ts'
import type { Answer } from '../state.ts'
import { Answers } from './answers.ts'

const MAC = parseMac('02:00:00:00:00:01')

test('an address is answered with the MAC of the subnet that holds it, on that link alone', () => {
  const answers = new Answers()
  answers.set({ link: 'flannel.1', subnet: parsePrefix('10.10.11.0/24'), mac: MAC, destination: undefined })
  assert.equal(answers.find('flannel.1', parseIp('10.10.11.200')), MAC)
  assert.equal(answers.find('flannel.1', parseIp('10.10.12.1')), undefined)
  assert.equal(answers.find('flannel.2', parseIp('10.10.11.200')), undefined)
  assert.equal(answers.find('flannel.1', parseIp('fe80::1')), undefined)
})

/** Few addresses and lengths, so that prefixes often nest and are often the same. */
const ip: fc.Arbitrary<Ip> = fc
  .uint8Array({ minLength: 2, maxLength: 2, max: 3 })
  .map(([a = 0, b = 0]) => formatIp(Uint8Array.of(10, 0, a, b * 64)))
const answer: fc.Arbitrary<Answer> = fc
  .tuple(ip, fc.constantFrom(16, 22, 24, 26), fc.uint8Array({ minLength: 6, maxLength: 6 }))
  .map(([base, length, bytes]) => ({
    link: 'l',
    subnet: prefixOf(base, length),
    mac: localMac(bytes),
    destination: undefined,
  }))

test('the longest prefix wins, after any history (against a search of all)', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), answer)), ip, (history, wanted) => {
      const answers = new Answers()
      const oracle = new Map<string, Answer>()
      for (const [present, each] of history) {
        if (present) answers.set(each)
        else answers.delete(each)
        if (present) oracle.set(each.subnet, each)
        else oracle.delete(each.subnet)
      }
      const [best] = [...oracle.values()]
        .filter(({ subnet }) => prefixContains(subnet, wanted))
        .toSorted((a, b) => prefixLength(b.subnet) - prefixLength(a.subnet))
      assert.equal(answers.find('l', wanted), best?.mac)
    }),
  )
})

test('a MAC is answered with its outer IP as long as a lease has it', () => {
  const answers = new Answers()
  const destination = parseIp('192.168.1.11')
  const [first, second] = ['10.10.11.0/24', '10.10.12.0/24'].map(
    (subnet): Answer => ({ link: 'flannel.1', subnet: parsePrefix(subnet), mac: MAC, destination }),
  )
  assert.ok(first && second)
  answers.set(first)
  answers.set(second)
  answers.delete(first)
  assert.equal(answers.findDestination('flannel.1', MAC), destination)
  assert.equal(answers.findDestination('flannel.2', MAC), undefined)
  answers.delete(second)
  assert.equal(answers.findDestination('flannel.1', MAC), undefined)
})
