import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FlagError, type FlagTable, formatFlags, parseFlags } from './flags.ts'

const TABLE = {
  iface: { kind: 'string', default: '', help: 'interface', repeatable: true },
  port: { kind: 'integer', default: '0', help: 'port' },
  masq: { kind: 'boolean', default: 'false', help: 'masquerade' },
} as const satisfies FlagTable

test("every form of Go's flag package says the same", () => {
  for (const argv of [['-port', '8'], ['--port', '8'], ['-port=8'], ['--port=8']]) {
    assert.equal(parseFlags(TABLE, argv).integer('port'), 8, argv.join(' '))
  }
})

test('a boolean takes its value after = only', () => {
  assert.equal(parseFlags(TABLE, ['--masq']).boolean('masq'), true)
  assert.equal(parseFlags(TABLE, ['--masq=0']).boolean('masq'), false)
  assert.throws(() => parseFlags(TABLE, ['--masq', 'false']), FlagError)
})

test('a repeatable flag keeps all values, another one the last', () => {
  const flags = parseFlags(TABLE, ['-iface=eth0', '--iface', 'eth1', '-port=1', '-port=2'])
  assert.deepEqual(flags.all('iface'), ['eth0', 'eth1'])
  assert.equal(flags.integer('port'), 2)
})

test('a value may hold = and be empty', () => {
  assert.equal(parseFlags(TABLE, ['-iface=a=b']).text('iface'), 'a=b')
  assert.equal(parseFlags(TABLE, ['-iface=']).text('iface'), '')
})

test('what is wrong is named', () => {
  for (const [argv, message] of [
    [['-nope'], /there is no flag -nope/],
    [['-port', 'x'], /flag -port is "x": it must be a whole number/],
    [['-port'], /flag -port needs a value/],
    [['-masq=maybe'], /flag -masq is "maybe": it must be true or false/],
    [['extra'], /"extra" is not a flag/],
    [['-toString'], /there is no flag -toString/],
  ] as const) {
    assert.throws(() => parseFlags(TABLE, argv), { name: 'FlagError', message })
  }
})

test('what no flag says, the environment may', () => {
  const environment = {
    prefix: 'FLANNELD_',
    variables: { FLANNELD_PORT: '7', FLANNELD_IFACE: 'eth9', FLANNELD_MASQ: '' },
  }
  const flags = parseFlags(TABLE, ['-port=8'], environment)
  assert.deepEqual([flags.integer('port'), flags.all('iface'), flags.boolean('masq')], [8, ['eth9'], false])
  assert.equal(parseFlags(TABLE, [], environment).integer('port'), 7)
  const variables = { FLANNELD_PORT: 'x' }
  assert.throws(() => parseFlags(TABLE, [], { prefix: 'FLANNELD_', variables }), {
    name: 'FlagError',
    message: 'FLANNELD_PORT is "x": it must be a whole number',
  })
})

test('the help names every flag with its default', () => {
  assert.match(formatFlags(TABLE), /-port integer\n\s+port \(default 0\)/)
})
