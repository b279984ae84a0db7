/** The field for a message, with files by picker, paste and drop. */
import { ICONS, el, icon } from './dom.js';

const MAX_CHARS = 10000, MAX_FILE_MB = 10;

export class Composer {
  /** @param {object} strings @param {{send(message: object): boolean, stop(): void, problem(words: string): void}} on */
  constructor(strings, on) {
    const { say } = strings;
    Object.assign(this, { say, on, files: [], running: false });
    this.input = el('textarea', { rows: 1, maxlength: MAX_CHARS, placeholder: say('placeholder'), 'aria-label': say('placeholder'), enterkeyhint: 'send', dir: 'auto', part: 'input' });
    this.picker = el('input', { type: 'file', multiple: true, hidden: true, tabindex: -1, 'aria-label': say('attach') });
    this.list = el('div', { class: 'files' });
    this.progress = el('progress', { max: 100, hidden: true, 'aria-label': say('send') });
    this.sendButton = el('button', { class: 'primary send', 'aria-label': say('send') }, icon(ICONS.send));
    this.stopButton = el('button', { type: 'button', class: 'stop', 'aria-label': say('stop'), hidden: true, onclick: () => on.stop() }, icon(ICONS.stop));
    this.form = el('form', {}, el('button', { type: 'button', class: 'plain attach', 'aria-label': say('attach'), onclick: () => this.picker.click() }, icon(ICONS.attach)),
      this.picker, this.input, this.sendButton, this.stopButton);
    this.root = el('div', { class: 'composer', part: 'composer' }, this.progress, this.list, this.form);
    this.listen();
  }

  listen() {
    this.form.addEventListener('submit', event => { event.preventDefault(); this.submit(); });
    this.input.addEventListener('keydown', event => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    this.input.addEventListener('input', () => this.grow());
    this.input.addEventListener('paste', event => { if (event.clipboardData?.files.length) { event.preventDefault(); this.add(event.clipboardData.files); } });
    this.picker.addEventListener('change', () => { this.add(this.picker.files); this.picker.value = ''; });
  }

  /** Takes files that are dropped on an element. */
  dropOn(target) {
    const over = on => event => { if (event.dataTransfer?.types.includes('Files')) { event.preventDefault(); target.classList.toggle('dropping', on); } };
    target.addEventListener('dragover', over(true));
    target.addEventListener('dragleave', over(false));
    target.addEventListener('drop', event => { over(false)(event); this.add(event.dataTransfer?.files ?? []); });
  }

  async add(files) {
    for (const file of files) {
      if (file.size > MAX_FILE_MB << 20) { this.on.problem(this.say('tooLarge', { name: file.name, limit: MAX_FILE_MB })); continue; }
      const url = await this.read(file).catch(() => null);
      if (!url) continue;
      const entry = { name: file.name, mimeType: file.type || 'application/octet-stream', url };
      entry.chip = el('button', { type: 'button', 'aria-label': this.say('remove', { name: file.name }), onclick: () => {
        this.files = this.files.filter(other => other !== entry);
        entry.chip.remove();
        this.input.focus();
      } }, `${file.name} ✕`);
      this.files.push(entry);
      this.list.append(entry.chip);
    }
    this.input.focus();
  }

  read(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onprogress = ({ loaded, total }) => this.showProgress(total ? 50 * loaded / total : 0);
      reader.onload = () => { this.showProgress(null); resolve(reader.result); };
      reader.onerror = () => { this.showProgress(null); reject(reader.error); };
      reader.readAsDataURL(file);
    });
  }

  /** Shows how much of a message has left, in per cent; null when there is nothing to show. */
  showProgress(percent) {
    this.progress.hidden = percent == null;
    this.progress.value = percent ?? 0;
  }

  submit() {
    const text = this.input.value, files = this.files.map(({ chip, ...file }) => file);
    if (this.running || (!text.trim() && !files.length)) return;
    const isImage = file => file.mimeType.startsWith('image/');
    const sent = this.on.send({ text, images: files.filter(isImage), files: files.filter(file => !isImage(file)) });
    if (!sent) return;
    this.input.value = '';
    this.files = [];
    this.list.replaceChildren();
    this.grow();
  }

  /** Puts a text back, unless another one is being written. */
  giveBack(text) {
    if (!this.input.value) this.input.value = text;
    this.grow();
    this.input.focus();
  }

  grow() {
    this.input.style.height = 'auto';
    this.input.style.height = `${this.input.scrollHeight + 2}px`;
  }

  setRunning(running) {
    const focused = [this.sendButton, this.stopButton].includes(this.root.getRootNode().activeElement);
    this.running = running;
    this.sendButton.hidden = running;
    this.stopButton.hidden = !running;
    if (focused) this.input.focus();
  }
}
